"""Ray's processes: a death ends a wait within seconds; a start that fails and an end in any state leave no process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from rlcsd.config.load import load
from rlcsd.engine.verl import ray_cluster
from rlcsd.engine.verl.ray_cluster import HeadNode, RayProcesses
from rlcsd.engine.verl.settings import engine_settings
from rlcsd.engine.verl.waiting import run_with_timeout, wait_for_requests, wait_for_results
from rlcsd.errors import InputError

from .conftest import CPU

SETTINGS = engine_settings(load([*CPU, "engine.gpus_per_node=2"]))


def rays() -> list[psutil.Process]:
    """All processes below this one that are Ray's."""
    watched = RayProcesses()
    watched.unrelated = set()
    watched.refresh()
    return list(watched.known.values())


def running(processes: list[psutil.Process]) -> list[str]:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        left = [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        if not left:
            return []
        time.sleep(0.2)
    return [" ".join(p.cmdline()) for p in left]


@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
def test_the_death_of_a_process_that_ray_needs_ends_the_run_and_leaves_nothing(name):
    import ray

    ray_cluster.join(SETTINGS)
    reference = ray.remote(num_cpus=0)(lambda: time.sleep(1000)).remote()
    time.sleep(2)
    there = rays()
    assert {"gcs_server", "raylet"} <= {p.name() for p in there}
    next(p for p in there if p.name() == name).kill()
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"^scoring: (the Ray cluster is gone|a process of the cluster died)"):
        wait_for_results([reference], "scoring", 600)
    with pytest.raises(InputError, match=f"^starting: the Ray cluster is gone: its {name} died$"):
        run_with_timeout(lambda: time.sleep(100), "starting", 600)

    async def forever() -> None:
        import asyncio

        await asyncio.sleep(100)

    with pytest.raises(InputError, match=f"^sampling: the Ray cluster is gone: its {name} died$"):
        wait_for_requests([forever()], "sampling", 600)
    ray_cluster.leave()
    assert time.monotonic() - begun < 50  # Ray itself ends this process a minute after it lost its gcs_server
    assert running(there) == [] and not ray.is_initialized()


def test_a_start_that_fails_half_way_leaves_nothing_and_the_next_one_works(monkeypatch):
    import ray
    from ray._private.node import Node

    started, names = list[psutil.Process](), list[str]()

    def late(self) -> None:
        started.extend(rays())
        names.extend(p.name() for p in started if p.name() in ("gcs_server", "raylet"))
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(Node, "start_ray_processes", late)
    with pytest.raises(
        InputError, match=r"^engine\.ray_address=null: Ray could not be started here \(The current node"
    ):
        ray_cluster.join(SETTINGS)
    assert names == ["gcs_server"] and running(started) == []
    monkeypatch.undo()
    mine = lambda number, frame: None  # noqa: E731
    before = signal.signal(signal.SIGTERM, mine)
    ray_cluster.join(SETTINGS)
    assert ray.get(ray.put(1)) == 1
    assert signal.signal(signal.SIGTERM, before) is mine  # Ray would take it for itself
    there = rays()
    ray_cluster.leave()
    assert running(there) == []
    ray_cluster.leave()  # a second time does nothing


def test_shared_memory_of_killed_processes_is_removed():
    import ray

    class Mapped:
        """Maps segments as NCCL and vLLM do, without Python's tracker, which would remove them."""

        def map(self, names: list[str]) -> None:
            import mmap

            self.files = [open(f"/dev/shm/{name}", "ab+") for name in names]  # noqa: SIM115
            for file in self.files:
                file.truncate(4096)
            self.maps = [mmap.mmap(file.fileno(), 4096) for file in self.files]

    mine, before = f"rlcsd_test_{os.getpid()}", f"rlcsd_before_{os.getpid()}"
    Path(f"/dev/shm/{before}").touch()
    try:
        ray_cluster.join(SETTINGS)
        actor = ray.remote(num_cpus=0)(Mapped).remote()
        ray.get(actor.map.remote([mine, before]))
        ray_cluster.record_segments()
        ray.kill(actor)
        ray_cluster.leave()
        assert not Path(f"/dev/shm/{mine}").exists()
        assert Path(f"/dev/shm/{before}").exists()  # somebody else's
    finally:
        Path(f"/dev/shm/{before}").unlink()


def test_a_head_that_takes_no_connections_is_lost():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        assert HeadNode(address).lost() is None
    assert HeadNode(address).lost() == "its gcs_server is not there any more"


def test_processes_of_the_program_itself_are_left_alone():
    watched = RayProcesses()
    child = subprocess.Popen(["sleep", "100"])
    watched.refresh()
    assert watched.known == {} and watched.lost() is None
    watched.kill()
    assert child.poll() is None
    os.kill(child.pid, signal.SIGKILL)
    child.wait()


def test_processes_get_the_drivers_variables_of_hugging_face_nccl_and_vllm(monkeypatch):
    passed = {"HF_ENDPOINT": "https://mirror", "HF_TOKEN": "secret", "NCCL_DEBUG": "INFO", "VLLM_USE_V1": "1"}
    for name, value in (passed | {"EDITOR": "vi"}).items():
        monkeypatch.setenv(name, value)
    found = ray_cluster.inherited_environment()
    assert found.items() >= passed.items() and "EDITOR" not in found


def test_nodes_that_join_a_cluster_late_are_waited_for(monkeypatch):
    import ray

    counts = iter([1, 1, 2])  # nodes of a Slurm job, each second
    node = {"Alive": True, "Resources": {"GPU": 8.0}}
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="127.0.0.1:1"))
    monkeypatch.setattr(ray, "nodes", lambda: [node] * next(counts))
    ray_cluster.join(engine_settings(load(["engine=verl", "engine.nodes=2", "engine.ray_address=127.0.0.1:1"])))
    assert next(counts, None) is None
    ray_cluster.leave()


@pytest.mark.slow
def test_a_cluster_that_is_too_small_or_not_there_is_refused(ray_on_cpu):
    settings = engine_settings(load([*CPU, "engine.gpus_per_node=4", "engine.nodes=3"]))
    with pytest.raises(InputError, match=r"engine\.nodes=3, engine\.gpus_per_node=4: the Ray cluster has 0 nodes with"):
        ray_cluster.join(settings)
