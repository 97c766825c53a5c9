"""What a run on a cluster would need, planned without verl and without weights."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from rlcsd.config.load import build_method, load
from rlcsd.engine.interface import build_engine, engine_line, memory_line
from rlcsd.engine.local.memory import Shape
from rlcsd.engine.verl.gpu_plan import gpu_plan
from rlcsd.errors import InputError
from rlcsd.run.plan import plan

# Qwen3-8B: parameters, layers, hidden, feed-forward, queries, keys, vocabulary, in + out dimensions of all linear layers.
EIGHT_B = Shape(8_190_735_360, 36, 4096, 12288, 4096, 1024, 151936, 36 * 79872)


def planned(*overrides: str):
    config = load(["engine=verl", "model=qwen3_8b", "task=logic_kk", "method=rlcsd", *overrides])
    return gpu_plan(EIGHT_B, config, build_method(config))


def test_shards_shrink_with_gpus_and_offload_moves_them_to_the_host():
    one, two = planned(), planned("engine.nodes=2")
    static = 16 * EIGHT_B.parameters  # weights, moments and the teacher's weights, in float32
    assert one.resting == pytest.approx(static / 8) and two.resting == pytest.approx(static / 16)
    away = planned("engine.offload=all")
    assert away.resting == 0 and away.host == pytest.approx(static / 8) and away.update < one.update
    moments = planned("engine.offload=optimizer")
    assert moments.host == pytest.approx(EIGHT_B.parameters) and moments.scoring < one.scoring


def test_sequence_parallelism_divides_activations_and_needs_no_gathered_weights():
    assert planned("engine.sequence_parallel=4", "engine.share_prefixes=false").update < planned().update
    with pytest.raises(InputError, match="share_prefixes=false"):
        planned("engine.sequence_parallel=4")
    with pytest.raises(InputError, match=r"engine\.tensor_parallel=3: must divide the number of GPUs, 1 × 8"):
        planned("engine.tensor_parallel=3")


def test_a_dry_run_needs_neither_verl_nor_a_gpu():
    config = load(["engine=verl", "engine.nodes=2", "engine.tensor_parallel=2"])
    assert engine_line(config) == "verl on 2 × 8 GPUs, 2 GPUs for each rollout server"
    assert memory_line(config, build_method(config)).startswith("about 0.")
    assert "verl on 2 × 8 GPUs" in plan(config)


def test_mistakes_in_keys_are_told_with_this_engines_keys():
    with pytest.raises(InputError, match="gpus_per_node"):
        load(["engine=verl", "engine.gpus_per_nod=4"])
    with pytest.raises(InputError, match=r"engine\.nodes"):
        load(["engine=verl", "engine.nodes=0"])


@pytest.mark.skipif(find_spec("verl") is not None, reason="verl is installed")
def test_without_verl_the_engine_is_refused_in_a_sentence():
    config = load(["engine=verl"])
    with pytest.raises(InputError, match=r"verl is not installed; it was tested with verl from 0\.9\.1"):
        build_engine(config, build_method(config))
