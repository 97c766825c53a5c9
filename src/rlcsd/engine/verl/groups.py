"""Groups of workers, one process for each GPU, and the rollout servers beside them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeVar

import ray

from ...config.schema import Config
from .cluster import join, leave, lost
from .private import (
    LLMServerManager,
    RayClassWithInitArgs,
    RayResourcePool,
    RayWorkerGroup,
)
from .settings import engine_settings, verl_config
from .waits import awaited, bounded, results, told
from .worker import RlcsdWorker

G = TypeVar("G", "Workers", "Servers")


class Workers:
    """One group on all GPUs of the pool; `model` is another model than the policy, which only scores."""

    def __init__(self, config: Config, pool: Any, model: str | None = None) -> None:
        self.settings = engine_settings(config)
        self.verl = verl_config(config, model)
        role = "actor_rollout" if model is None else "actor"
        made = RayClassWithInitArgs(
            cls=ray.remote(RlcsdWorker), config=self.verl.actor_rollout_ref, role=role, run=config
        )
        self.group = bounded(
            lambda: RayWorkerGroup(
                resource_pool=pool, ray_cls_with_init=made, device_name=self.settings.platform, name_prefix=role
            ),
            "starting the workers",
            self.settings.timeout,
        )
        self.ranks = 1 + max(self.call("start", "loading the model", model is None))

    def call(self, method: str, what: str, *arguments: Any) -> list[Any]:
        """One method on every worker with the same arguments; errors as in `waits.results`."""
        with told(what):
            references = [getattr(worker, method).remote(*arguments) for worker in self.group.workers]
        return results(references, what, self.settings.timeout)

    def call_each(self, method: str, what: str, tasks: Sequence[Any]) -> list[Any]:
        """One method with one argument for each place in data parallelism; GPUs that share sequences get the same."""
        share = self.settings.sequence_parallel
        with told(what):
            stored = [ray.put(task) for task in tasks]
            references = [
                getattr(worker, method).remote(stored[rank // share]) for rank, worker in enumerate(self.group.workers)
            ]
        return results(references, what, self.settings.timeout)[::share]

    def kill(self) -> None:
        for worker in self.group.workers:
            with suppress(Exception):
                ray.kill(worker)


class Servers:
    """Rollout servers on the workers' GPUs: awake with the policy's weights while they sample, else asleep."""

    def __init__(self, workers: Workers, pool: Any) -> None:
        self.workers, self.timeout = workers, workers.settings.timeout
        self.manager = bounded(
            lambda: LLMServerManager.create(
                config=workers.verl, worker_group=workers.group, rollout_resource_pool=pool
            ),
            "starting the rollout servers",
            self.timeout,
        )
        self.client = self.manager.get_client()
        self.awake = True
        self.sleep()

    def wake(self, version: int) -> None:
        """Bring the policy's weights, then take requests."""
        if not self.awake:
            self.workers.call("update_weights", "bringing weights to the rollout servers", version, "naive")
            self.awake = True

    def sleep(self) -> None:
        """Give the memory back to the trainer."""
        if self.awake:
            awaited(self._all_asleep(), "putting the rollout servers to sleep", self.timeout)
            self.awake = False

    async def _all_asleep(self) -> None:
        for replica in self.manager.get_replicas():
            await replica.sleep()

    def kill(self) -> None:
        servers = [server for replica in self.manager.get_replicas() for server in replica.servers]
        for actor in (*servers, self.manager.global_load_balancer):
            with suppress(Exception):
                ray.kill(actor)


class Cluster:
    """All processes of a run: the policy's workers, those of another model as the teacher, and the rollout servers."""

    def __init__(self, config: Config, teacher_model: str | None) -> None:
        """Starts or joins Ray and starts everything on it.

        Raises:
            InputError: there are not enough GPUs, or something did not come up.
        """
        e = engine_settings(config)
        self.pool: Any = None
        self.groups: list[Workers | Servers] = []
        join(e)
        try:
            self.pool = resource_pool(config, 2 if teacher_model else 1)
            self.policy = self._kept(Workers(config, self.pool))
            self.teacher = self._kept(Workers(config, self.pool, teacher_model)) if teacher_model else None
            self.servers = self._kept(Servers(self.policy, self.pool))
        except BaseException:
            self.close()
            raise

    def _kept(self, group: G) -> G:
        self.groups.append(group)
        return group

    def close(self) -> None:
        """End all processes, whatever state they are in, and Ray if it was started here."""
        if self.pool is not None and ray.is_initialized() and not lost():
            for group in reversed(self.groups):
                group.kill()
            for placed in self.pool.pgs or ():
                with suppress(Exception):
                    ray.util.remove_placement_group(placed)
        self.groups.clear()
        self.pool = None
        leave()


def resource_pool(config: Config, groups: int) -> Any:
    """All GPUs of the run, each shared by so many groups of workers."""
    e = engine_settings(config)
    pool = RayResourcePool(
        process_on_nodes=[e.gpus_per_node] * e.nodes, use_gpu=True, max_colocate_count=groups, name_prefix="rlcsd"
    )
    what = f"waiting for {e.nodes} × {e.gpus_per_node} free GPUs"
    bounded(lambda: pool.get_placement_groups(device_name=e.platform), what, e.timeout)
    return pool
