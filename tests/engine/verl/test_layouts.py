"""Every layout of the work over two ranks gives the local engine's numbers: LoRA, offload, sequence parallelism,
other precisions, a teacher in workers of its own. The ranks run without Ray here (`ranks.py`)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from rlcsd.config.load import load
from rlcsd.engine.local import LocalEngine
from rlcsd.engine.local.model import TINY, Network, load_tokenizer
from rlcsd.engine.verl.verl_engine import VerlEngine, self_check
from rlcsd.errors import InputError
from rlcsd.methods import METHODS
from rlcsd.records import Pair, Sampling, SamplingMask
from rlcsd.stages.correction import RolloutCorrection
from rlcsd.stages.score import build_token_batch

from .conftest import CPU, TASK
from .ranks import Piped, PipedCluster, Ranks
from .test_parity import figures, learn, relative, rows_of

TRUNCATED = RolloutCorrection("token_truncate")

SMALL = ["engine.micro_batch_tokens=60", "engine.score_tokens=150"]
SEQUENCE = ["engine.sequence_parallel=2", "engine.share_prefixes=false", "engine.attention=shared_sdpa"]
LAYOUTS = {
    "plain": [],
    "every row in full, moments away": ["engine.share_prefixes=false", "engine.offload=optimizer"],
    "offload, checkpointing, logits in pieces": [
        "engine.offload=all",
        "model.gradient_checkpointing=true",
        "engine.head_chunk=5",
    ],
    "sequences shared, checkpointing": [*SEQUENCE, "model.gradient_checkpointing=true", "engine.offload=all"],
}


@pytest.fixture(scope="module")
def ranks():
    pair = Ranks(2)
    yield pair
    pair.close()


def built(name: str, **fields):
    return METHODS[name].from_fields(**({"top_k": 9} if METHODS[name].topk_from != "none" else {}), **fields)


def cluster_of(ranks, method, *overrides: str) -> VerlEngine:
    config = load([*CPU, *TASK, "engine.gpus_per_node=2", *SMALL, *overrides])
    config = config.model_copy(update={"method": method.config})
    other = getattr(method.config, "teacher_model", None)
    return VerlEngine(config, method, PipedCluster(ranks, config, other))


def local_of(method, *overrides: str, network: Network | None = None) -> LocalEngine:
    config = load([*TASK, "engine=local", "engine.device=cpu", "engine.self_check=false", *overrides])
    config = config.model_copy(update={"method": method.config})
    return LocalEngine(config, method, network)


def masked(local, rows):
    """The rows with random sampling masks of two to seven tokens, except for the first, which has none."""
    generator, found = torch.Generator().manual_seed(2), rows[:1]
    for row in rows[1:]:
        kept = [
            sorted({token, *torch.randint(0, 60, (int(torch.randint(1, 7, (1,), generator=generator)),)).tolist()})
            for token in row.pair.response
        ]
        ids = torch.tensor([token for one in kept for token in one], dtype=torch.int32)
        mask = SamplingMask(ids, torch.tensor(list(map(len, kept)), dtype=torch.int32))
        mass = local.score([replace(row.pair, sampling_mask=mask)], "policy").log_kept_mass
        sample = replace(row.rollout.sample, sampling_mask=mask, log_kept_mass=mass)
        found = [*found, replace(row, rollout=replace(row.rollout, sample=sample))]
    return found


def compare(cluster, local, method, rows, columns_within: float, gradient_within: float) -> None:
    """Compare the token batch and the gradient of the first update from it of both engines."""
    theirs = method.prepare(build_token_batch(cluster, rows, method, TRUNCATED), 2)
    ours = method.prepare(build_token_batch(local, rows, method, TRUNCATED), 2)
    for name in ("teacher_log_prob", "teacher_log_kept_mass", "teacher_entropy", "contrast_log_prob"):
        expected = getattr(ours, name)
        if expected is not None:
            assert relative(getattr(theirs, name), expected) < columns_within, name
    local.optimizer.zero_grad()
    local.gradient([row.pair for row in rows], ours, method)
    found = cluster.gradient([row.pair for row in rows], theirs, method)
    expected = {n: p.grad for n, p in local.policy.named_trainable().items() if p.grad is not None}
    assert found.keys() == expected.keys()
    largest = max(float(grad.abs().max()) for grad in expected.values())
    assert largest > 0
    worst = max(float((found[n] - grad).abs().max()) for n, grad in expected.items()) / largest
    assert worst < gradient_within, worst
    for engine, batch in ((cluster, theirs), (local, ours)):
        if batch.topk_handle is not None:
            engine.release(batch.topk_handle)


def agrees(cluster, within: float) -> None:
    """The sampler's log-probs of its own tokens are those of the trainer's scorer."""
    prompts = [tuple(range(10 + 3 * i, 18 + 4 * i)) for i in range(4)]
    samples = [some[0] for some in cluster.sample(prompts, 1, Sampling(max_tokens=20), 3)]
    scores = cluster.score([Pair(p, s.ids) for p, s in zip(prompts, samples, strict=True)], "policy")
    served = torch.cat([sample.sampled_log_probs for sample in samples])
    assert float((scores.log_prob - served).abs().max()) < within


def test_one_rank_alone_loads_the_whole_model(ranks, tmp_path):
    """With tied embeddings too, of which verl itself loads the model on every rank."""
    sizes = {"num_hidden_layers": 16, "layer_types": ["full_attention"] * 16, "intermediate_size": 8192}
    config = AutoConfig.from_pretrained(TINY, tie_word_embeddings=True, **sizes)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    load_tokenizer(load([]).model).save_pretrained(tmp_path)
    expected = {name: tensor.detach() for name, tensor in model.named_parameters()}
    size = sum(tensor.nbytes for tensor in expected.values()) / 2**20
    method = built("grpo")
    cluster_of(ranks, method)  # imports what takes memory too
    before = [now for now, _ in ranks.ask("", "memory", [()] * 2)]
    loaded = load([*CPU, *TASK, "engine.gpus_per_node=2", f"model.path={tmp_path}"])
    policy = Piped(ranks, "policy", loaded.model_copy(update={"method": method.config}))
    grown = [peak - start for (_, peak), start in zip(ranks.ask("", "memory", [()] * 2), before, strict=True)]
    assert size > 150 and grown[1] < 0.8 * size < grown[0], (size, grown)  # half of it, and one tensor at a time
    found, _ = policy.call("weights", "", True)[0]
    assert found.keys() - {"lm_head.weight"} == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_do_not_depend_on_the_layout(layout, ranks, tmp_path):
    first = built("rlcsd", teacher="ema", ema_rate=0.5)
    common = ["kl_coefficient=0.01", "entropy_coefficient=0.02"]
    cluster, local = cluster_of(ranks, first, *common, *LAYOUTS[layout]), local_of(first, *common)
    whole = ["gspo"] if layout in ("plain", "sequences shared, checkpointing") else []  # its ratios are those of rows
    names = ("rlcsd", "sdpo", "opsd_ectr", *whole)
    rows = {name: rows_of(local, built(name)) for name in names}
    rows |= {name: masked(local, rows[name]) for name in ("rlcsd", "sdpo")}
    for name, some in rows.items():
        compare(cluster, local, built(name), some, 1e-3, 2e-4)
    learn(cluster, rows["rlcsd"], first)
    pairs = [row.pair for row in rows["rlcsd"]]
    before = figures(cluster, pairs)
    assert float((before[0] - before[1]).abs().max()) > 1e-3
    agrees(cluster, 2e-4)
    self_check(cluster)
    cluster.save_state(tmp_path)
    again = cluster_of(ranks, first, *common)  # in the plain layout
    again.load_state(tmp_path)
    assert torch.allclose(figures(again, pairs), before, atol=2e-4)


@pytest.mark.parametrize("how", ["auto", "merged"])
def test_adapters_train_as_the_local_engines_and_servers_have_them(how, ranks, tmp_path):
    method = built("rlcsd", teacher="snapshot", snapshot_every=2)
    adapters = ["model.lora.rank=4", "model.lora.alpha=8", f"engine.rollout_adapters={how}"]
    cluster = cluster_of(ranks, method, *adapters)
    self_check(cluster)
    plain = local_of(method)
    rows = rows_of(plain, method)
    pairs = [row.pair for row in rows]
    learn(cluster, rows, method, 1)  # so that both halves of the adapters have a gradient
    agrees(cluster, 2e-4)
    policy, teacher = (cluster.score(pairs, who).log_prob for who in ("policy", "teacher"))
    assert torch.allclose(teacher, plain.score(pairs, "policy").log_prob, atol=1e-4)
    assert float((policy - teacher).abs().max()) > 1e-2
    cluster.save(tmp_path)
    exported = local_of(method, f"model.path={tmp_path}")
    assert torch.allclose(exported.score(pairs, "policy").log_prob, policy, atol=1e-4)

    from peft import PeftModel

    base = AutoModelForCausalLM.from_pretrained(TINY)
    adapted = Network(PeftModel.from_pretrained(base, tmp_path, is_trainable=True))
    local = local_of(built("grpo"), network=adapted)
    assert torch.allclose(local.score(pairs, "policy").log_prob, policy, atol=1e-4)
    compare(cluster, local, built("grpo"), rows, 1e-3, 2e-4)
    learn(cluster, rows, method, 1)
    policy, teacher = (cluster.score(pairs, who).log_prob for who in ("policy", "teacher"))
    assert torch.allclose(policy, teacher, atol=1e-4)  # a snapshot after the second step


@pytest.mark.parametrize("name", ["cepo", "sdpo"])
def test_a_teacher_that_is_the_policy_has_no_weights_of_its_own(name, ranks):
    method = built(name, teacher="policy")
    cluster, local = cluster_of(ranks, method), local_of(method)
    rows = rows_of(local, method)
    compare(cluster, local, method, rows, 1e-3, 2e-4)
    learn(cluster, rows, method, 1)
    policy, teacher = (cluster.score([row.pair for row in rows], who).log_prob for who in ("policy", "teacher"))
    assert torch.equal(policy, teacher)


def test_bfloat16_is_as_close_to_float32_as_the_local_engines_and_reduces_in_float32(ranks):
    method = built("rlcsd", teacher="fixed")
    local, half = local_of(method), local_of(method, "model.dtype=bfloat16")
    cluster = cluster_of(ranks, method, "model.dtype=bfloat16")
    rows = rows_of(local, method)
    pairs = [row.pair for row in rows]
    batch = build_token_batch(local, rows, method, TRUNCATED)
    # Ratios of 1, far from the bounds of the clip, where rounding would decide which tokens count.
    batch = method.prepare(batch.with_columns(old_log_prob=local.score(pairs, "policy").log_prob), 2)
    grads = []
    for engine in (local, half):
        engine.optimizer.zero_grad()
        engine.gradient(pairs, batch, method)
        grads.append({n: p.grad for n, p in engine.policy.named_trainable().items() if p.grad is not None})
    expected, rounded = grads
    found = cluster.gradient(pairs, batch, method)

    def far(some) -> float:
        return sum(float((some[n] - g).square().sum()) for n, g in expected.items()) ** 0.5

    size = sum(float(g.square().sum()) for g in expected.values()) ** 0.5
    assert 1e-4 < far(found) / size < 0.1 and far(found) < 20 * far(rounded), (far(found) / size, far(rounded) / size)
    assert all(grad.dtype == torch.float32 for grad in found.values())
    self_check(cluster)


@pytest.mark.parametrize("lora", [[], ["model.lora.rank=4"]], ids=["whole", "adapters"])
def test_weights_without_a_master_copy_step_as_the_local_engines(lora, ranks, tmp_path):
    method = built("rlcsd", teacher="ema", ema_rate=0.5)
    half = ["model.dtype=bfloat16", "model.master_dtype=bfloat16", *lora]
    cluster, local = cluster_of(ranks, method, *half), local_of(method, *half)
    rows = rows_of(local, method)
    pairs = [row.pair for row in rows]
    shares = []
    for engine in (cluster, local):
        batch = method.prepare(build_token_batch(engine, rows, method, TRUNCATED), 2)
        shares.append([engine.update(pairs, batch, method, rate)["update/changed_share"] for rate in (1e-3, 1e-5)])
    assert [one.weight for one in shares[0]] == [one.weight for one in shares[1]]
    for found, expected in zip(*shares, strict=True):
        assert found.value == pytest.approx(expected.value, rel=0.1)
    assert lora or shares[0][1].value < shares[0][0].value / 2  # half of new adapters is 0, and moves at any rate
    assert {gradient.dtype for gradient in cluster.gradient(pairs, batch, method).values()} == {torch.bfloat16}
    self_check(cluster)
    before = figures(cluster, pairs)
    cluster.save_state(tmp_path)
    again = cluster_of(ranks, method, *half)
    again.load_state(tmp_path)
    assert torch.allclose(figures(again, pairs), before, atol=1e-6)
    cluster.save(tmp_path / "model")
    saved = {t.dtype for file in (tmp_path / "model").glob("*.safetensors") for t in load_file(file).values()}
    assert saved == {torch.bfloat16}


@pytest.mark.parametrize("name", ["opd_ectr", "sdpo"])
def test_a_teacher_of_its_own_scores_in_workers_of_its_own(name, ranks, tmp_path):
    other = AutoModelForCausalLM.from_pretrained(TINY)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    other.save_pretrained(tmp_path)
    load_tokenizer(load([]).model).save_pretrained(tmp_path)
    method = built(name, teacher="model", teacher_model=str(tmp_path))
    cluster, local = cluster_of(ranks, method), local_of(method)
    compare(cluster, local, method, rows_of(local, method), 1e-3, 2e-4)
    learn(cluster, rows_of(local, method), method, 1)


def test_a_model_that_is_computed_wrongly_is_refused(ranks):
    cluster = cluster_of(ranks, built("grpo"))
    cluster.servers.wake(0)
    with torch.no_grad():
        cluster.servers.decoder.model.model.norm.weight.mul_(1.5)
    with pytest.raises(InputError, match="the rollout server's log-probs differ from a plain pass"):
        self_check(cluster)
