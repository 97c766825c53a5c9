"""The local engine on a pretended CUDA device: it never mixes devices, and it seldom waits for what the device computes.

The same real rollouts go through every method: score, update, save, resume, and one more step.
"""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch

from rlcsd.config.load import build_method, load
from rlcsd.config.schema import ModelConfig
from rlcsd.engine.local import LocalEngine
from rlcsd.engine.local.model import Teacher, load_network
from rlcsd.prepare import prepare
from rlcsd.records import Sampling
from rlcsd.run.checkpoint import load_checkpoint, save_checkpoint
from rlcsd.stages.grade import grade
from rlcsd.trainer import Trainer
from tests.methods.catalogue import EIGHT
from tests.pretended_device import DeviceError, PretendedDevice, device_forgotten

# Upper bounds on how often the host waits for the device; to be lowered when the engine waits less.
WAITS_PER_TOKEN = 0.4  # of rows that are decoded side by side; 20 more for a batch
WAITS_PER_STEP = 40  # scoring, update and metrics of a step of one mini-batch

TINY = [
    "prompts_per_step=2", "prompts_per_update=2", "group_size=4", "task.train_sizes=[3]", "task.unseen_sizes=[]",
    "task.train_per_size=4", "task.eval_per_size=1", "task.forms=[atom,not,and,or,iff,if]", "sampling.max_tokens=128",
    "evaluation.sampling.max_tokens=8", "engine.threads=1", "engine.self_check=false",
]  # fmt: skip
CASES = {
    **{name: (f"method={name}",) for name in EIGHT},
    "another model as the teacher": ("method=opd", "method.teacher_model=tiny"),
    "checkpointing in bf16": ("method=sdpo", "model.gradient_checkpointing=true", "model.dtype=bfloat16"),
    "regularised, in small pieces": (
        "method=rlcsd", "kl_coefficient=0.01", "entropy_coefficient=0.01", "engine.head_chunk=64",
        "engine.micro_batch_tokens=256", "engine.score_tokens=256",
    ),
    "adapters in bf16": (
        "method=rlcsd", "model.lora.rank=4", "model.lora.dropout=0.1", "model.dtype=bfloat16", "method.snapshot_every=1",
    ),
}  # fmt: skip


def engine_of(*overrides: str, device: str = "cuda") -> LocalEngine:
    config = load([*TINY, f"engine.device={device}", "engine.cuda_graph=false", *overrides])
    return LocalEngine(config, build_method(config))


def trainer_of(engine: LocalEngine) -> Trainer:
    return Trainer(prepare(engine.config, tokenizer=engine.tokenizer), engine)


def step(engine: LocalEngine, samples) -> dict[str, float]:
    """The first training step with given samples; its metrics apart from durations."""
    with patch.object(engine, "sample", lambda *args: samples):
        metrics = trainer_of(engine).step(1).metrics
    return {name: value for name, value in metrics.items() if not name.startswith(("time/", "perf/"))}


def sample(engine: LocalEngine, seed: int = 0, max_tokens: int = 128):
    trainer = trainer_of(engine)
    prompts = [trainer._prompt(problem) for problem in trainer.problems(1)]
    return engine.sample(prompts, 4, Sampling(max_tokens=max_tokens), seed)


@pytest.fixture(scope="module")
def rollouts():
    """A seed and the responses that the tiny model samples with it on the CPU; some have a correct and a wrong hint."""
    engine = engine_of("method=rlcsd", device="cpu")
    trainer = trainer_of(engine)
    problems = trainer.problems(1)
    for seed in range(20):
        samples = sample(engine, seed)
        groups = grade(engine.tokenizer, trainer.task, problems, [trainer._prompt(p) for p in problems], samples)
        if len([row for group in trainer.hint(groups, 1).examples for row in group]) > 1:
            return seed, samples
    raise AssertionError("no seed has groups with both outcomes")


@pytest.fixture
def samples(rollouts):
    return rollouts[1]


def test_the_pretended_device_refuses_what_cuda_refuses():
    refused = [
        "there + torch.ones(3)",
        "torch.ones(3)[torch.tensor([1], device='cuda')]",
        "there.softmax(0).multinomial(1, generator=torch.Generator())",
        "there.numpy()",
        "torch.cat([there, torch.ones(1)])",
        "torch.zeros(3, device='cuda').index_add_(0, torch.tensor([1]), there[:1])",
        "torch.nn.Linear(3, 3).to('cuda')(torch.ones(3))",
        "torch.nn.Linear(3, 3)(there)",
    ]
    taken = [
        "there + torch.ones(())",
        "there[torch.tensor([1])]",
        "there.cpu() + torch.ones(3)",
        "torch.nn.Linear(3, 3).to('cuda')(there).sum().backward()",
        "torch.ones(3).copy_(there) + torch.ones(3)",
        "there.softmax(0).multinomial(1, generator=torch.Generator(device='cuda').manual_seed(1))",
    ]
    with PretendedDevice() as device:
        there = torch.ones(3, device="cuda")
        for code in refused:
            with pytest.raises(DeviceError):
                eval(code)
        for code in taken:
            eval(code)
        assert bool(there.any())
        assert sum(device.waits.values()) == 3, "two copies to the host and a look at a value"
    assert torch.ones(3).device.type == "cpu"


def test_sampling_is_that_of_the_cpu_and_waits_little(rollouts):
    seed, samples = rollouts
    with PretendedDevice() as device:
        engine = engine_of("method=grpo")
        device.waits.clear()
        found = sample(engine, seed)
    assert [[one.ids for one in group] for group in found] == [[one.ids for one in group] for group in samples]
    decoded = max(len(one.ids) for group in found for one in group)
    assert decoded > 64
    assert sum(device.waits.values()) <= WAITS_PER_TOKEN * decoded + 20, device.waits.most_common(8)


@pytest.mark.parametrize("case", CASES)
def test_no_method_mixes_devices(case, samples, tmp_path):
    with PretendedDevice() as device:
        engine = engine_of(*CASES[case])
        device.waits.clear()
        metrics = step(engine, samples)
        waits = device.waits.copy()
        folder = save_checkpoint(tmp_path, engine, 1)
        resumed = engine_of(*CASES[case])
        load_checkpoint(folder, resumed)
        again = step(resumed, samples)
        sample(resumed, max_tokens=3)
    for figures in (metrics, again):
        assert figures["update/count"] == 1
        assert figures["actor/grad_norm"] > 0
    if case in EIGHT:
        assert sum(waits.values()) <= WAITS_PER_STEP, waits.most_common(12)
    if case == "rlcsd":
        assert metrics == pytest.approx(step(engine_of(*CASES[case], device="cpu"), samples), rel=1e-3, abs=1e-6)


def test_the_self_check_mixes_none(monkeypatch):
    for tokens in ("_SHORT", "_LONG"):
        monkeypatch.setattr(f"rlcsd.engine.local.self_check.{tokens}", 2, raising=False)
    with PretendedDevice():
        engine_of("method=grpo", "engine.self_check=true")


@pytest.mark.parametrize(
    "file",
    [
        "local/sampler.py",
        "local/caches.py",
        "local/scoring.py",
        "local/update.py",
        "rlcsd/layout.py",
        "stages/score.py",
    ],
)
def test_a_file_that_forgets_the_device_is_seen(file, samples):
    with PretendedDevice():
        engine = engine_of("method=opsd_ectr")
        with device_forgotten(file), pytest.raises(DeviceError):
            _ = sample(engine, max_tokens=3), step(engine, samples)


@pytest.mark.parametrize("what", ["optimizer states", "teacher"])
def test_what_a_resume_leaves_on_the_cpu_is_seen(what, samples, tmp_path):
    def unmoved(param, value, *args, **kwargs):
        return value

    def replaced(teacher, state):
        for name, parameter in teacher.network.model.named_parameters():
            parameter.data = state.get(name, parameter.data)

    with PretendedDevice():
        engine = engine_of("method=rlcsd")
        step(engine, samples)
        folder = save_checkpoint(tmp_path, engine, 1)
        plant = {
            "optimizer states": patch.object(
                torch.optim.Optimizer, "_process_value_according_to_param_policy", unmoved
            ),
            "teacher": patch.object(Teacher, "load_state", replaced),
        }[what]
        with plant:
            load_checkpoint(folder, engine)
        with pytest.raises(DeviceError):
            step(engine, samples)


@pytest.fixture(scope="module", autouse=True)
def _a_model_loaded_before():
    """See `pretended_device`: the first load of a process must not be on the pretended device."""
    load_network(ModelConfig(), torch.device("cpu"))
