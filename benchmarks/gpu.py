"""What one GPU makes of the local engine: one run of a few minutes, one JSON file.

    python benchmarks/gpu.py [--out docs/gpu] [--limit 420] [--only runs,small]
    python benchmarks/gpu.py --smoke        # the same parts on a CPU, at the smallest sizes
    python benchmarks/gpu.py --tables       # writes the tables of docs/gpu.md from the files in docs/gpu

Models have random weights in the shape of public ones, so nothing is downloaded. The file is written after each part: a
run that is cut off keeps what it had, and a part that fails records its error. Shares are of the bf16 matrix-product
rate that the first part measures, for the FLOPs that `engine/costs.py` counts.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for tests.golden

import torch  # noqa: E402
from common import machine, options, synchronise  # noqa: E402
from transformers import AutoModelForCausalLM, Qwen3Config  # noqa: E402

from rlcsd.config.load import build_method, load  # noqa: E402
from rlcsd.engine.architectures import known_architecture  # noqa: E402
from rlcsd.engine.costs import Work, after, flops  # noqa: E402
from rlcsd.engine.local import LocalEngine, self_check  # noqa: E402
from rlcsd.engine.local.lora import with_adapters  # noqa: E402
from rlcsd.engine.local.memory import memory_plan  # noqa: E402
from rlcsd.engine.local.model import Network, load_tokenizer  # noqa: E402
from rlcsd.errors import InputError  # noqa: E402
from rlcsd.methods import METHODS, OBJECTIVES  # noqa: E402
from rlcsd.records import Pair, Rollout, Sample, Sampling, TrainingExample, Verdict  # noqa: E402
from rlcsd.run.result import Result  # noqa: E402
from rlcsd.run.run import Run  # noqa: E402
from rlcsd.stages.correction import RolloutCorrection  # noqa: E402
from rlcsd.stages.score import build_token_batch  # noqa: E402
from tests import golden  # noqa: E402

TRUNCATED = RolloutCorrection("token_truncate")
FILTERED = Sampling(top_p=0.95, top_k=20, keep_mask=True)

PUBLISHED = (ROOT / "docs/gpu.md", "<!-- tables -->")
Facts = dict[str, Any]


class Bench:
    """The device, the sizes, the time that is left, and what was found."""

    def __init__(self, smoke: bool, limit: float) -> None:
        self.smoke, self.limit, self.begun = smoke, limit, time.perf_counter()
        self.cuda = torch.cuda.is_available() and not smoke
        self.device = torch.device("cuda" if self.cuda else "cpu")
        self.parts: dict[str, Facts] = {}

    def size(self, full: int, small: int) -> int:
        return small if self.smoke else full

    @property
    def left(self) -> float:
        return self.limit - (time.perf_counter() - self.begun)

    @property
    def peak_flops(self) -> float:
        """FLOP/s of bf16 products as the part `machine` measured them."""
        return float(self.parts.get("machine", {}).get("bf16_tflops", float("nan"))) * 1e12

    def timed(self, run: Callable[[], Any], work: float = 0.0, tokens: int = 0) -> tuple[Any, Facts]:
        """The result of one call, with its seconds, its peak of device memory, tokens per second and share of peak."""
        self.clean()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        synchronise()
        begun = time.perf_counter()
        result = run()
        synchronise()
        seconds = time.perf_counter() - begun
        facts: Facts = {"seconds": round(seconds, 4)}
        if tokens:
            facts["tokens_per_second"] = round(tokens / seconds)
        if work:
            facts["share_of_peak"] = round(work / seconds / self.peak_flops, 4)
        if self.cuda:
            facts["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        return result, facts

    def tried(self, run: Callable[[], Facts]) -> Facts:
        try:
            return run()
        except Exception as error:  # the other parts go on
            self.clean()
            return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:300] if str(error) else ''}"}

    def clean(self) -> None:
        if self.cuda:
            torch.cuda.empty_cache()


PARTS: dict[str, Callable[[Bench], Facts]] = {}


def part(function: Callable[[Bench], Facts]) -> Callable[[Bench], Facts]:
    PARTS[function.__name__.removesuffix("_part")] = function
    return function


# ------------------------------------------------------------------ the machine, the losses


@part
def machine_part(bench: Bench) -> Facts:
    """Versions, and the measured rates that shares are of."""
    import transformers

    size = bench.size(8192, 128)

    def rate(dtype: torch.dtype, precision: str = "highest") -> float:
        a, b = (torch.randn(size, size, device=bench.device, dtype=dtype) for _ in range(2))
        torch.set_float32_matmul_precision(precision)
        try:
            seconds = _repeated(lambda: a @ b)
        finally:
            torch.set_float32_matmul_precision("highest")
        return round(2 * size**3 / seconds / 1e12, 4)

    source = torch.empty(2**28 if bench.cuda else 2**16, device=bench.device)
    target = torch.empty_like(source)
    facts: Facts = {
        **machine(),
        "python": sys.version.split()[0],
        "transformers": transformers.__version__,
        "cuda": torch.version.cuda,
        "bf16_tflops": rate(torch.bfloat16),
        "tf32_tflops": rate(torch.float32, "high"),
        "float32_tflops": rate(torch.float32),
        "copy_tb_per_second": round(8 * source.numel() / _repeated(lambda: target.copy_(source)) / 1e12, 3),
    }
    if bench.cuda:
        facts |= {"memory_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)}
    return facts


def _repeated(run: Callable[[], Any], count: int = 5) -> float:
    """Mean seconds of a call after two that warm up."""
    run(), run()
    synchronise()
    begun = time.perf_counter()
    for _ in range(count):
        run()
    synchronise()
    return (time.perf_counter() - begun) / count


@part
def losses(bench: Bench) -> Facts:
    """The golden cases of all methods with every tensor on the device, in float64."""
    with torch.device(bench.device):
        found = golden.outcomes(ROOT / "tests/data/golden_losses")
    return {
        "cases": len(found),
        "agree": sum(one.ok for one in found),
        "worst_loss_error": max(one.loss_error for one in found),
        "worst_gradient_error": max(one.gradient_error for one in found),
    }


# ------------------------------------------------------------------ the demo's model


def demo(bench: Bench, *overrides: str) -> Any:
    return load([
        "steps=2", "prompts_per_step=4", "prompts_per_update=2", "group_size=4", "task.unseen_sizes=[]",
        "task.train_per_size=64", "task.eval_per_size=2", "evaluation.sampling.max_tokens=32",
        "evaluation.before=false", "evaluation.every=0", "trackers=[]", "figures=false",
        f"output_dir={tempfile.mkdtemp()}",
        f"sampling.max_tokens={bench.size(96, 16)}", f"engine.device={bench.device.type}", *overrides,
    ])  # fmt: skip


@part
def agreement(bench: Bench) -> Facts:
    """The same rollouts of the tiny model scored and updated on the CPU and on the device."""
    facts: Facts = {}
    for dtype in ("float32", "bfloat16"):
        for name in ("rlcsd",) if bench.smoke else ("grpo", "rlcsd", "sdpo", "opsd_ectr"):
            for label, sampling in {"": Sampling(), ", masks": FILTERED}.items():
                facts[f"{name}, {dtype}{label}"] = bench.tried(
                    lambda d=dtype, n=name, s=sampling: _agreement(bench, d, n, s)  # type: ignore[misc]
                )
    return facts


def _agreement(bench: Bench, dtype: str, name: str, sampling: Sampling) -> Facts:
    engines = []
    for device in ("cpu", bench.device.type):
        config = demo(bench, f"method={name}", f"model.dtype={dtype}", "engine.self_check=false")
        config = config.model_copy(update={"engine": config.engine.model_copy(update={"device": device})})
        engines.append(LocalEngine(config, build_method(config)))
    method = build_method(engines[0].config)
    examples = _examples(engines[0], prompts=3, group=4, sampling=replace(sampling, max_tokens=24))
    pairs = [one.pair for one in examples]
    scores, gradients, losses = [], [], []
    for engine in engines:
        scores.append(engine.score(pairs, "policy").log_prob.cpu())
        batch = method.prepare(build_token_batch(engine, examples, method, TRUNCATED), 1)
        losses.append(engine.gradient(pairs, batch, method)["actor/loss"].value)  # type: ignore[union-attr]
        gradients.append(
            torch.cat([p.grad.double().cpu().flatten() for p in engine.policy.trainable() if p.grad is not None])
        )
    difference = (scores[0] - scores[1]).abs()
    return {
        "log_prob_difference_mean": float(difference.mean()),
        "log_prob_difference_max": float(difference.max()),
        "losses": losses,
        "relative_gradient_difference": float((gradients[0] - gradients[1]).norm() / gradients[0].norm()),
    }


def _examples(engine: LocalEngine, prompts: int, group: int, sampling: Sampling) -> list[TrainingExample]:
    """Sampled rollouts after random prompts, the first half of each group correct; hints are siblings."""
    rng = random.Random(0)
    texts = [_ids(rng, 20 + 3 * index, 60) for index in range(prompts)]
    groups = engine.sample(texts, group, sampling, 1)
    return _as_examples(list(zip(texts, groups, strict=True)))


def _as_examples(groups: Sequence[tuple[tuple[int, ...], Sequence[Sample]]]) -> list[TrainingExample]:
    examples = []
    for number, (prompt, samples) in enumerate(groups):
        half = len(samples) // 2
        for index, sample in enumerate(samples):
            correct = index < half
            own, other = (0, half) if correct else (half, 0)
            right = samples[(index + 1) % half if correct else other]
            wrong = (
                [samples[half + (index + shift) % half] for shift in (1, 2)] if half > 2 else [samples[own + half - 1]]
            )
            rollout = Rollout(sample, "", Verdict(correct, float(correct)), None)
            examples.append(
                TrainingExample(
                    prompt,
                    rollout,
                    1.0 if correct else -1.0,
                    (*prompt, *right.ids),
                    tuple((*prompt, *one.ids) for one in wrong),
                    group=number,
                    index=index,
                )
            )
    return examples


def _ids(rng: random.Random, count: int, vocabulary: int) -> tuple[int, ...]:
    return tuple(rng.randrange(10, vocabulary - 1) for _ in range(count))


@part
def runs(bench: Bench) -> Facts:
    """Whole runs: all methods and settings, finite, the same twice, and the same when resumed after the first step."""
    others = {"opd", "opd_ectr", *OBJECTIVES} - {"grpo"}  # another model as the teacher, or grpo's update
    filters = [f"sampling.top_p={FILTERED.top_p}", f"sampling.top_k={FILTERED.top_k}"]
    settings = {name: [f"method={name}", "engine.self_check=false"] for name in METHODS if name not in others}
    settings |= {
        "grpo, bf16": ["method=grpo", "model.dtype=bfloat16"],
        "rlcsd, bf16": ["method=rlcsd", "model.dtype=bfloat16"],
        "rlcsd, bf16, LoRA": ["method=rlcsd", "model.dtype=bfloat16", "model.lora.rank=4"],
        "sdpo, bf16, checkpointed": ["method=sdpo", "model.dtype=bfloat16", "model.gradient_checkpointing=true"],
        "rlcsd, bf16, not deterministic": ["method=rlcsd", "model.dtype=bfloat16", "engine.deterministic=false"],
        "grpo, filters, reference": ["method=grpo", "kl_coefficient=0.01", *filters],
        "rlcsd, filters, masks": ["method=rlcsd", "sampling_mask=true", *filters],
        "rlcsd, bf16 weights": ["method=rlcsd", "model.dtype=bfloat16", "model.master_dtype=bfloat16"],
        "opsd, as run": ["method=opsd", "variant=as_run"],
        **{f"rlcsd, {name}": ["method=rlcsd", f"objective={name}"] for name in sorted(OBJECTIVES)},
    }  # fmt: skip
    repeated = {
        "grpo", "rlcsd", "rlcsd, bf16", "rlcsd, bf16, LoRA", "rlcsd, bf16, not deterministic", "rlcsd, filters, masks",
        "rlcsd, bf16 weights",
    }  # fmt: skip
    facts: Facts = {}
    for name, overrides in settings.items():
        if bench.left < 20 and not bench.smoke:
            facts[name] = {"skipped": "no time"}
        elif not bench.smoke or name == "rlcsd":
            facts[name] = bench.tried(lambda n=name, o=overrides: _run(bench, o, n in repeated))  # type: ignore[misc]
    return facts


def _run(bench: Bench, overrides: list[str], repeated: bool) -> Facts:
    def weights(run: Run) -> torch.Tensor:
        return torch.cat([p.detach().double().cpu().flatten() for p in run.engine.policy.trainable()])  # type: ignore[attr-defined]

    def once(*more: str) -> Run:
        run = Run(demo(bench, *overrides, *more))
        run.execute()
        return run

    run = once("save_every=1")
    facts: Facts = {"finite": bool(weights(run).isfinite().all())}
    changed = [step["update/changed_share"] for step in Result(run.folder).log if "update/changed_share" in step]
    if changed:
        facts["changed_share"] = changed
    if repeated:
        facts["second_run_differs_by"] = float((weights(once()) - weights(run)).abs().max())
        resumed = Run(run.config, folder=_cut(run))
        resumed.execute(resume=True)
        facts["resumed_run_differs_by"] = float((weights(resumed) - weights(run)).abs().max())
    return facts


def _cut(run: Run) -> Path:
    """The run's folder as it was after its first step."""
    run.lock.release()
    for checkpoint in (run.folder / "checkpoints").iterdir():
        if checkpoint.name.endswith("2"):
            shutil.rmtree(checkpoint)
    return run.folder


# ------------------------------------------------------------------ public shapes


def engine_of(bench: Bench, model: str, method: str, *overrides: str) -> LocalEngine:
    """The engine over random weights of a public shape; bf16 under autocast, as `model.dtype=bfloat16` has it."""
    config = load([
        f"method={method}", "model.dtype=bfloat16", f"engine.device={bench.device.type}", "engine.self_check=false",
        "sampling.max_tokens=1024", "max_prompt_tokens=512", "engine.threads=4", "engine.score_tokens=32768",
        "engine.micro_batch_tokens=16384", *overrides,
    ])  # fmt: skip
    shape = known_architecture(model)
    if bench.smoke:
        shape = Qwen3Config(
            vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=16, max_position_embeddings=40960, tie_word_embeddings=True,
        )  # fmt: skip
    torch.manual_seed(0)
    dtype = torch.bfloat16 if config.model.lora else torch.float32
    with torch.device(bench.device):
        network = AutoModelForCausalLM.from_config(shape, attn_implementation="sdpa", dtype=dtype)
    if config.model.gradient_checkpointing:
        network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        network.enable_input_require_grads()
    network = with_adapters(network, config.model).to(bench.device)
    policy = Network(network, config.engine.head_chunk, autocast=True)
    return LocalEngine(config, build_method(config), policy, load_tokenizer(config.model))


def work_of(pairs: Sequence[Pair], head: bool = True) -> Work:
    """A forward pass of all pairs, contexts included, as if nothing were shared."""
    total = Work()
    for pair in pairs:
        total += after(0, len(pair.context)) + after(len(pair.context), len(pair.response), head=head)
    return total


@part
def small(bench: Bench) -> Facts:
    """Sampling, scoring and updates of 64 rollouts of 1,024 tokens in Qwen3-0.6B: grpo and rlcsd."""
    return _phases(bench, "Qwen/Qwen3-0.6B")


@part
def medium(bench: Bench) -> Facts:
    """As `small`, in Qwen3-1.7B with gradient checkpointing."""
    return _phases(bench, "Qwen/Qwen3-1.7B", "model.gradient_checkpointing=true")


@part
def large(bench: Bench) -> Facts:
    """As `small`, in Qwen3-4B with adapters of rank 64 and gradient checkpointing."""
    return _phases(bench, "Qwen/Qwen3-4B", "model.lora.rank=64", "model.gradient_checkpointing=true")


_MODELS = {
    "small": "Qwen3-0.6B",
    "medium": "Qwen3-1.7B, checkpointed",
    "large": "Qwen3-4B, LoRA 64, checkpointed",
}


def _phases(bench: Bench, model: str, *overrides: str) -> Facts:
    engine = engine_of(bench, model, "rlcsd", "method.k_max=2", *overrides)
    rlcsd, grpo = build_method(engine.config), build_method(load(["method=grpo"]))
    rng, prompts, group = random.Random(0), bench.size(8, 2), bench.size(8, 4)
    tokens = bench.size(1024, 12)
    texts = [_ids(rng, bench.size(256, 8) + 5 * i, engine.shape.vocabulary) for i in range(prompts)]
    engine.sample(texts[:2], 2, Sampling(max_tokens=4), 0)  # libraries load what they need
    facts: Facts = {"parameters": engine.shape.parameters}

    def cost(pairs: Sequence[Pair], passes: float = 1.0) -> float:
        return passes * flops(engine.shape, work_of(pairs))

    groups, facts["sample"] = bench.timed(
        lambda: engine.sample(texts, group, Sampling(max_tokens=tokens), 0), tokens=prompts * group * tokens
    )
    examples = _as_examples(list(zip(texts, groups, strict=True)))
    pairs = [one.pair for one in examples]
    length = sum(len(pair.response) for pair in pairs)
    scored, facts["score, own prompts"] = bench.timed(lambda: engine.score(pairs, "policy"), cost(pairs), length)
    sampled = [one.rollout.sample.log_probs for one in examples]
    if all(column is not None for column in sampled):
        difference = (torch.cat(sampled) - scored.log_prob.cpu()).abs()  # type: ignore[arg-type]
        facts["sampler_against_scorer"] = {"mean_nats": float(difference.mean()), "max_nats": float(difference.max())}
    hinted = [
        Pair(context, one.pair.response)
        for one in examples
        for context in (one.teacher_prompt or (), *one.contrast_prompts)
    ]
    batch, facts["score, one correct and two wrong hints"] = bench.timed(
        lambda: rlcsd.prepare(build_token_batch(engine, examples, rlcsd, TRUNCATED), 1),
        cost(hinted),
        len(hinted) * tokens,
    )
    plain = grpo.prepare(build_token_batch(engine, examples, grpo, TRUNCATED), 1)
    for label, method, columns in (("rlcsd, first", rlcsd, batch), ("rlcsd", rlcsd, batch), ("grpo", grpo, plain)):
        _, facts[f"update, {label}"] = bench.timed(
            lambda m=method, c=columns: engine.update(pairs, c, m, 1e-6),
            cost(pairs, 3),
            length,  # type: ignore[misc]
        )
    engine.deterministic = False
    facts["update, grpo, not deterministic"] = bench.timed(
        lambda: engine.update(pairs, plain, grpo, 1e-6), cost(pairs, 3), length
    )[1]
    plan = memory_plan(engine.shape, engine.config, rlcsd)
    facts["planned_gib"] = {name: round(value / 2**30, 2) for name, value in plan.items()}
    return facts


@part
def sampling(bench: Bench) -> Facts:
    """Milliseconds of a decoding step by rows and filters, and looks of the host at the device for each token."""
    rng, tokens, group = random.Random(0), bench.size(64, 4), bench.size(8, 2)
    kinds = {
        "plain": Sampling(max_tokens=tokens),
        "top-p 0.95, top-k 20": replace(FILTERED, max_tokens=tokens, keep_mask=False),
        "the same with masks": replace(FILTERED, max_tokens=tokens),
    }
    facts: Facts = {}
    for graph in (False, True):
        engine = engine_of(bench, "Qwen/Qwen3-0.6B", "grpo", f"engine.cuda_graph={str(graph).lower()}")
        for rows in (64, 256) if not bench.smoke else (4,):
            texts = [_ids(rng, bench.size(256, 8), engine.shape.vocabulary) for _ in range(rows // group)]
            engine.sample(texts, group, Sampling(max_tokens=4), 0)
            for label, settings in kinds.items():
                _, timed = bench.timed(
                    lambda e=engine, t=texts, s=settings: e.sample(t, group, s, 0), tokens=rows * tokens
                )  # type: ignore[misc]
                name = f"{rows} rows, {label}{', CUDA graph' if graph else ''}"
                facts[name] = timed | {"ms_per_step": round(1e3 * timed["seconds"] / tokens, 2)}
    short, long = bench.size(32, 4), bench.size(96, 8)
    counts = []
    for limit in (short, long):
        with _host_syncs() as places:
            engine.sample(texts[:2], 2, Sampling(max_tokens=limit), 0)
        counts.append(sum(places.values()))
    facts["host_syncs"] = places  # of the longer one, by line
    facts["host_syncs_per_token"] = round((counts[1] - counts[0]) / (long - short), 3) if bench.cuda else None
    return facts


@contextmanager
def _host_syncs() -> Iterator[dict[str, int]]:
    """Counts synchronisations of host and device by line, as CUDA reports them."""
    places: dict[str, int] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            if torch.cuda.is_available():
                torch.cuda.set_sync_debug_mode("default")
    for one in caught:
        if "synchroniz" in str(one.message) and "prototype" not in str(one.message):
            place = f"{Path(one.filename).name}:{one.lineno}"
            places[place] = places.get(place, 0) + 1


@part
def lengths(bench: Bench) -> Facts:
    """Gradients of long rows in Qwen3-0.6B, two rows at a time, checkpointed: seconds, share of peak, memory."""
    grpo, facts = build_method(load(["method=grpo"])), {}
    engine = engine_of(bench, "Qwen/Qwen3-0.6B", "grpo", "model.gradient_checkpointing=true", "engine.head_chunk=2048")
    rng, vocabulary = random.Random(2), engine.shape.vocabulary
    for length in (4096, 16384, 32768) if not bench.smoke else (8,):
        if bench.left < 30 and not bench.smoke:
            break
        prompt = _ids(rng, bench.size(256, 8), vocabulary)
        samples = [_guessed(_ids(rng, length, vocabulary)) for _ in range(2)]
        examples = [TrainingExample(prompt, Rollout(one, "", Verdict(True, 1.0), None), 1.0) for one in samples]
        pairs = [one.pair for one in examples]
        batch = grpo.prepare(build_token_batch(engine, examples, grpo, TRUNCATED), 1)
        work = 3 * flops(engine.shape, work_of(pairs))
        run = lambda p=pairs, b=batch: engine.gradient(p, b, grpo)  # noqa: E731
        facts[f"2 rows of {length}"] = bench.tried(
            lambda r=run, w=work, n=2 * length: (r(), bench.timed(r, w, n)[1])[1]
        )  # type: ignore[misc]
        engine.optimizer.zero_grad(set_to_none=True)
    return facts


def _guessed(ids: tuple[int, ...]) -> Sample:
    """A sample that no model has drawn: log-probs of a uniform guess."""
    guess = torch.full((len(ids),), -12.0)
    return Sample(ids, guess, guess, False, guess)


_PRODUCTS = ("float32", "bf16 summed in float32")


def _head_product(bench: Bench, kind: str) -> Facts:
    """Milliseconds of hidden states times the output embedding of Qwen3-0.6B, and the largest error of a logit."""
    n, hidden, vocabulary = (4096, 1024, 151_936) if not bench.smoke else (16, 8, 64)
    generator = torch.Generator(device=bench.device).manual_seed(0)
    x = torch.randn(n, hidden, device=bench.device, generator=generator)
    w = 0.05 * torch.randn(vocabulary, hidden, device=bench.device, generator=generator)
    half = w.bfloat16()

    def product() -> torch.Tensor:
        return x @ w.T if kind == "float32" else torch.mm(x.bfloat16(), half.T, out_dtype=torch.float32)

    exact = x[:64].double() @ w.double().T
    return {"ms": 1e3 * _repeated(product), "max_error": float((product()[:64].double() - exact).abs().max())}


@part
def kernels(bench: Bench) -> Facts:
    """Products of the head by number type, and what a new shape costs each attention kernel."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    facts: Facts = {f"head, {name}": bench.tried(lambda n=name: _head_product(bench, n)) for name in _PRODUCTS}  # type: ignore[misc]
    bench.clean()
    named = {"cuDNN": "CUDNN_ATTENTION", "memory-efficient": "EFFICIENT_ATTENTION"} if bench.cuda else {"math": "MATH"}
    for label, name in named.items():

        def seconds(backend: str = name) -> Facts:
            first, second = [], []
            for step in range(bench.size(4, 1)):
                rows, keys = 16 - step, bench.size(1000, 20) + 13 * step
                q = torch.randn(rows, 16, bench.size(512, 8), 128, device=bench.device, dtype=torch.bfloat16)
                k = torch.randn(rows, 16, keys, 128, device=bench.device, dtype=torch.bfloat16)
                q.requires_grad_(), k.requires_grad_()
                mask = torch.ones(rows, 1, q.shape[2], keys, device=bench.device, dtype=torch.bool)
                mask[..., : step + 1] = False
                for found in (first, second):
                    synchronise()
                    begun = time.perf_counter()
                    with sdpa_kernel(getattr(SDPBackend, backend)):
                        scaled_dot_product_attention(q, k, k, attn_mask=mask).sum().backward()
                    synchronise()
                    found.append(time.perf_counter() - begun)
            return {"first_ms": round(1e3 * max(first[1:] or first), 1), "again_ms": round(1e3 * min(second), 2)}

        facts[f"attention of a new shape, {label}"] = bench.tried(seconds)
    return facts


@part
def check(bench: Bench) -> Facts:
    """What the self-check measures on Qwen3-0.6B's shape, whose logits are made as large as a trained model's."""
    engine = engine_of(bench, "Qwen/Qwen3-0.6B", "grpo")
    rng, facts = random.Random(3), {}
    prompts = [_ids(rng, count, engine.shape.vocabulary) for count in (20, 31, 12)]
    for loud in (1.0, 8.0):
        weight = engine.policy.core.get_output_embeddings().weight
        with torch.no_grad():
            weight.mul_(loud)
        try:
            self_check.self_check(engine.policy, prompts, 10)
            facts[f"embedding × {loud:g}"] = "passes"
        except InputError as error:
            facts[f"embedding × {loud:g}"] = str(error)
        with torch.no_grad():
            weight.div_(loud)
    return facts


@part
def profile(bench: Bench) -> Facts:
    """Share of time in which the device idles, and its longest kernels, while it samples, scores and updates."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    engine = engine_of(bench, "Qwen/Qwen3-0.6B", "rlcsd", "method.k_max=2")
    method, rng = build_method(engine.config), random.Random(1)
    texts = [_ids(rng, bench.size(256, 8), engine.shape.vocabulary) for _ in range(bench.size(8, 2))]
    length, group = bench.size(256, 8), bench.size(8, 4)
    groups = [[_guessed(_ids(rng, length, engine.shape.vocabulary)) for _ in range(group)] for _ in texts]
    examples = _as_examples(list(zip(texts, groups, strict=True)))
    pairs = [one.pair for one in examples]
    state: Facts = {}
    work = {
        "sample": lambda: engine.sample(texts, group, Sampling(max_tokens=bench.size(24, 4)), 0),
        "score": lambda: state.update(batch=method.prepare(build_token_batch(engine, examples, method, TRUNCATED), 1)),
        "update": lambda: engine.update(pairs, state["batch"], method, 1e-6),
    }
    facts: Facts = {}
    for name, run in work.items():
        run()
        synchronise()
        with profiler(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if bench.cuda else [])]) as found:
            begun = time.perf_counter()
            run()
            synchronise()
            wall = time.perf_counter() - begun
        device = [
            one for one in found.key_averages() if _device_time(one) and not one.key.startswith(("aten::", "autograd"))
        ]
        device.sort(key=_device_time, reverse=True)
        facts[name] = {
            "seconds": round(wall, 4),
            "idle_share": round(1 - _busy(found) / wall, 3) if bench.cuda else None,
            "launches": sum(one.count for one in found.key_averages() if "LaunchKernel" in one.key),
            "kernels_ms": [[one.key[:100], one.count, round(_device_time(one) / 1e3, 2)] for one in device[:8]],
        }
    return facts


def _device_time(event: Any) -> float:
    return float(getattr(event, "self_device_time_total", 0.0))


def _busy(found: Any) -> float:
    """Seconds in which at least one kernel or copy ran."""
    spans = sorted(
        (one.time_range.start, one.time_range.end)
        for one in found.events()
        if str(getattr(one, "device_type", "")).endswith("CUDA") and not getattr(one, "is_user_annotation", False)
    )
    total, end = 0.0, float("-inf")
    for start, stop in spans:
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total / 1e6


# ------------------------------------------------------------------ tables


def tables(records: Mapping[str, Facts]) -> str:
    """Markdown tables of all records, by the names of their files."""
    return "\n\n".join(_tables(name, record["parts"]) for name, record in sorted(records.items()))


def _tables(name: str, parts: Facts) -> str:
    facts = parts["machine"]
    rates = ", ".join(f"{name} {facts[f'{name}_tflops']:.0f}" for name in ("bf16", "tf32", "float32"))
    head = (
        f"## {name}\n\n{facts['device']}, torch {facts['torch']}, transformers {facts['transformers']}, CUDA "
        f"{facts['cuda']}. Measured rates of matrix products in TFLOP/s: {rates}; of copies "
        f"{facts['copy_tb_per_second']:.1f} TB/s."
    )
    phase = [
        (model, name, *_speed(one))
        for part, model in _MODELS.items()
        for name, one in parts.get(part, {}).items()
        if isinstance(one, dict) and "tokens_per_second" in one
    ]
    sampled = [
        (name, f"{one['ms_per_step']:.1f}", f"{one['tokens_per_second']:,}")
        for name, one in parts.get("sampling", {}).items()
        if isinstance(one, dict) and "ms_per_step" in one
    ]
    long = [(name, *_speed(one)) for name, one in parts.get("lengths", {}).items() if "seconds" in one]
    agreed = [
        (name, f"{one['log_prob_difference_mean']:.1e}", f"{one['relative_gradient_difference']:.1e}")
        for name, one in parts.get("agreement", {}).items()
        if "losses" in one
    ]
    whole = [
        (
            name,
            one.get("finite", one.get("failed", one.get("skipped"))),
            f"{one['changed_share'][-1]:.1%}" if "changed_share" in one else "–",
            one.get("second_run_differs_by", "–"),
            one.get("resumed_run_differs_by", "–"),
        )
        for name, one in parts.get("runs", {}).items()
        if isinstance(one, dict)
    ]
    speed = ("s", "tokens/s", "share of peak", "GiB")
    ran = ("run of two steps, tiny model", "finite", "weights changed", "repeated, differs by", "resumed, differs by")
    return "\n\n".join([
        head,
        *_table(("model", "phase, 64 rollouts of 1,024 tokens", *speed), phase),
        *_table(("sampling, Qwen3-0.6B", "ms a token step", "tokens/s"), sampled),
        *_table(("gradient, Qwen3-0.6B, checkpointed", *speed), long),
        *_table(("CPU against GPU, tiny model", "log-probs, mean nats", "gradient, relative"), agreed),
        *_table(ran, whole),
    ])  # fmt: skip


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """One Markdown table, or nothing without rows."""
    lines = [columns, ["---"] * len(columns), *rows]
    return ["\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)] if rows else []


def _speed(one: Facts) -> tuple[str, ...]:
    """Seconds, tokens per second, share of peak and GiB of a timed call."""
    return f"{one['seconds']:.2f}", f"{one['tokens_per_second']:,}", _share(one), f"{one.get('peak_gib', 0):.1f}"


def _share(one: Facts) -> str:
    return f"{one['share_of_peak']:.1%}" if "share_of_peak" in one else "–"


def read(folder: Path) -> dict[str, Facts]:
    """The records of a folder by the names of their files."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}


def write_tables(folder: Path) -> None:
    """The part of docs/gpu.md below its mark, from all records in the folder."""
    records = read(folder)
    page, mark = PUBLISHED
    above = page.read_text(encoding="utf-8").split(mark)[0]
    page.write_text(f"{above}{mark}\n\n{tables(records)}\n", encoding="utf-8")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--out", type=Path, default=None, help="folder for the record, such as docs/gpu")
    parser.add_argument("--limit", type=float, default=420.0, help="seconds; no part begins after them")
    parser.add_argument("--only", default="", help=f"parts, comma-separated: {', '.join(PARTS)}")
    parser.add_argument("--tables", action="store_true", help="write the tables of docs/gpu.md and end")
    arguments = parser.parse_args()
    if arguments.tables:
        write_tables(ROOT / "docs/gpu")
        return
    bench = Bench(arguments.smoke, arguments.limit)
    if not bench.cuda and not bench.smoke:
        parser.error("no GPU was found; --smoke runs the same parts on a CPU")
    if bench.smoke:
        print("smoke run: the sizes are too small for the figures to mean anything", flush=True)
    for name in [one for one in arguments.only.split(",") if one] or list(PARTS):
        begun = time.perf_counter()
        skipped = {"skipped": "no time"} if bench.left <= 0 else None
        bench.parts[name] = skipped or bench.tried(lambda n=name: PARTS[n](bench))  # type: ignore[misc]
        bench.clean()
        print(f"{name}: {time.perf_counter() - begun:.1f} s {bench.parts[name].get('failed', '')}", flush=True)
        record = {"parts": bench.parts}
        if arguments.out is not None:
            device = machine()["device"].removeprefix("NVIDIA ").replace(" ", "-").lower()
            arguments.out.mkdir(parents=True, exist_ok=True)
            path = arguments.out / f"{machine()['date']}-{device}.json"
            path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
