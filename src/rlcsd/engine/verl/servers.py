"""The processes of a run: worker groups (one process per GPU) and the rollout servers on the same GPUs."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import ray

from ...config.schema import Config
from ..interface import keeps_sampling_mask
from .compat import LLMServerManager, RayClassWithInitArgs, RayResourcePool, RayWorkerGroup
from .ray_cluster import end_server, join, leave, lost, note_segments, record_segments
from .sampling_masks import pass_masks_on
from .settings import engine_settings, verl_config
from .waiting import run_with_timeout, translated_errors, wait_for_requests, wait_for_results
from .worker import RlcsdWorker

G = TypeVar("G", "Workers", "Servers")
_END_SECONDS = 20.0  # that servers get to end their own processes, before they are killed


class Workers:
    """A group of workers on all GPUs of the pool. `model` is the path of another model than the policy, a teacher."""

    def __init__(self, config: Config, pool: Any, model: str | None = None) -> None:
        self.config, self.settings = config, engine_settings(config)
        self.verl = verl_config(config, model)
        role = "actor_rollout" if model is None else "actor"
        worker = RayClassWithInitArgs(
            cls=ray.remote(RlcsdWorker), config=self.verl.actor_rollout_ref, role=role, run=config
        )
        self.group = run_with_timeout(
            lambda: RayWorkerGroup(
                resource_pool=pool, ray_cls_with_init=worker, device_name=self.settings.platform, name_prefix=role
            ),
            "starting the workers",
            self.settings.timeout,
        )
        try:
            self.ranks = 1 + max(self.call("start", "loading the model", model is None))
        except BaseException:
            self.kill()  # the cluster does not know this group yet
            raise

    def call(self, method: str, what: str, *arguments: Any) -> list[Any]:
        """Call a method on every worker with the same arguments. Raises as `wait_for_results` does."""
        with translated_errors(what):
            references = [getattr(worker, method).remote(*arguments) for worker in self.group.workers]
        return wait_for_results(references, what, self.settings.timeout)

    def call_each(self, method: str, what: str, tasks: Sequence[Any]) -> list[Any]:
        """Call a method with one task for each data-parallel rank; GPUs that share sequences get the same task."""
        share = self.settings.sequence_parallel
        with translated_errors(what):
            stored = [ray.put(task) for task in tasks]
            references = [
                getattr(worker, method).remote(stored[rank // share]) for rank, worker in enumerate(self.group.workers)
            ]
        return wait_for_results(references, what, self.settings.timeout)[::share]

    def kill(self) -> None:
        for worker in self.group.workers:
            with suppress(Exception):
                ray.kill(worker)


class Servers:
    """Rollout servers: awake with the policy's weights while they sample, asleep while the trainer computes."""

    def __init__(self, workers: Workers, pool: Any) -> None:
        self.workers, self.timeout = workers, workers.settings.timeout
        self.manager = run_with_timeout(
            lambda: LLMServerManager.create(
                config=workers.verl, worker_group=workers.group, rollout_resource_pool=pool
            ),
            "starting the rollout servers",
            self.timeout,
        )
        self.client = self.manager.get_client()
        servers = [server for replica in self.manager.get_replicas() for server in replica.servers]
        wait_for_results([s.__ray_call__.remote(note_segments) for s in servers], "looking at servers", self.timeout)
        if keeps_sampling_mask(workers.config):
            passing = [s.__ray_call__.remote(pass_masks_on) for s in servers]
            wait_for_results(passing, "preparing servers for sampling masks", self.timeout)
        self.awake = True
        self.sleep()

    def wake(self, version: int) -> None:
        """Send the policy's weights to the servers and wake them, unless they are awake."""
        if not self.awake:
            self.workers.call("update_weights", "bringing weights to the rollout servers", version, "naive")
            self.awake = True

    def sleep(self) -> None:
        """Free the servers' GPU memory for the trainer."""
        if self.awake:
            wait_for_requests([self._sleep_all()], "putting the rollout servers to sleep", self.timeout)
            self.awake = False

    async def _sleep_all(self) -> None:
        for replica in self.manager.get_replicas():
            await replica.sleep()

    def wait_for(self, requests: Sequence[Awaitable[Any]]) -> list[Any]:
        """The servers' answers, in order. Raises as `wait_for_requests` does."""
        return wait_for_requests(requests, "sampling", self.timeout)

    def kill(self) -> None:
        servers = [server for replica in self.manager.get_replicas() for server in replica.servers]
        with suppress(Exception):
            ended = [server.__ray_call__.remote(end_server) for server in servers]
            ray.wait(ended, num_returns=len(ended), timeout=_END_SECONDS)
        for actor in (*servers, self.manager.global_load_balancer):
            with suppress(Exception):
                ray.kill(actor)


class Cluster:
    """All processes of a run: the policy's workers, those of another teacher model, and the rollout servers."""

    def __init__(self, config: Config, teacher_model: str | None) -> None:
        """Start or join Ray, and start everything on it; on failure nothing is left running.

        Raises:
            InputError: there are too few GPUs, or a process did not start.
        """
        self.pool: Any = None
        self.groups: list[Workers | Servers] = []
        join(engine_settings(config))
        try:
            self.pool = _resource_pool(config, 2 if teacher_model else 1)
            self.policy = self._registered(Workers(config, self.pool))
            self.teacher = self._registered(Workers(config, self.pool, teacher_model)) if teacher_model else None
            self.servers = self._registered(Servers(self.policy, self.pool))
        except BaseException:
            self.close()
            raise

    def _registered(self, group: G) -> G:
        self.groups.append(group)
        return group

    def close(self) -> None:
        """End all processes, whatever state they are in, and Ray if it was started here."""
        if self.pool is not None and ray.is_initialized() and not lost():
            record_segments()
            for group in reversed(self.groups):
                group.kill()
            for placement_group in self.pool.pgs or ():
                with suppress(Exception):
                    ray.util.remove_placement_group(placement_group)
        self.groups.clear()
        self.pool = None
        leave()


def _resource_pool(config: Config, groups: int) -> Any:
    """All GPUs of the run, each shared by `groups` worker groups."""
    e = engine_settings(config)
    pool = RayResourcePool(
        process_on_nodes=[e.gpus_per_node] * e.nodes, use_gpu=True, max_colocate_count=groups, name_prefix="rlcsd"
    )
    run_with_timeout(
        lambda: pool.get_placement_groups(device_name=e.platform),
        f"waiting for {e.nodes} × {e.gpus_per_node} free GPUs",
        e.timeout,
    )
    return pool
