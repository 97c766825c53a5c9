"""Engines on the CPU: Ray with logical GPUs, two ranks over gloo, rollout servers on transformers or on vLLM's CPU build.

Only where verl is installed (`make test-verl`); elsewhere the files that need it are not collected.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

WITHOUT = {
    "test_settings.py",
    "test_verl_engine.py",
    "test_gpu_plan.py",
    "test_recipes.py",
}  # need neither verl nor Ray
ROOT = Path(__file__).parents[3]
if find_spec("verl") is None:
    collect_ignore = [path.name for path in Path(__file__).parent.glob("test_*.py") if path.name not in WITHOUT]
else:  # before verl is imported, here and in the processes that are started
    os.environ.update(
        VERL_PLATFORM="cpu", VERL_USE_EXTERNAL_MODULES="tests.engine.verl.plugins", RAY_worker_niceness="0",
        RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0", RAY_USAGE_STATS_ENABLED="0",
        PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    )  # fmt: skip
CPU = [
    "engine=verl", "engine.platform=cpu", "engine.modules=[tests.engine.verl.plugins]", "engine.rollout=rlcsd_cpu",
    "engine.timeout=900",
]  # fmt: skip
TASK = [
    "prompts_per_step=4", "prompts_per_update=2", "group_size=4", "task.train_sizes=[2]", "task.unseen_sizes=[]",
    "task.train_per_size=8", "task.eval_per_size=2", "task.forms=[atom,not,and,or,iff,if]", "sampling.max_tokens=64",
    "evaluation.sampling.max_tokens=64", "evaluation.every=0", "evaluation.samples=1", "figures=false", "trackers=[]",
]  # fmt: skip


@pytest.fixture(scope="module")
def overrides() -> list[str]:
    """What the engines of a test file have in common; a file with other rollout servers has its own."""
    return CPU


@pytest.fixture(scope="module")
def ray_on_cpu(overrides) -> Iterator[None]:
    """One Ray for the engines of a test file: two logical GPUs, little memory, ended afterwards."""
    ray = pytest.importorskip("ray")
    from rlcsd.config.load import load
    from rlcsd.engine.verl.settings import environment

    variables = environment(load(overrides).engine) | {"PYTHONPATH": os.environ["PYTHONPATH"], "OMP_NUM_THREADS": "1"}
    ray.init(
        num_cpus=8,
        num_gpus=2,
        object_store_memory=200 * 2**20,
        include_dashboard=False,
        log_to_driver=bool(os.environ.get("RLCSD_RAY_LOGS")),
        logging_level="ERROR",
        runtime_env={"env_vars": variables},
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def engines(ray_on_cpu, overrides) -> Iterator[Callable[..., Any]]:
    """Builds an engine from overrides; at most one lives at a time."""
    from rlcsd.config.load import build_method, load
    from rlcsd.engine.interface import build_engine

    alive: list[Any] = []

    def build(*more: str) -> Any:
        while alive:
            alive.pop().close()
        config = load([*overrides, *TASK, *more])
        alive.append(build_engine(config, build_method(config)))
        return alive[-1]

    yield build
    while alive:
        alive.pop().close()
