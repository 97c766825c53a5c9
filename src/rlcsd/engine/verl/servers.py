"""Groups of workers, one process for each GPU, and the rollout servers beside them."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import ray
import torch

from ...config.schema import Config
from ...errors import InputError
from ...records import Sample, Sampling
from .compat import LLMServerManager, RayClassWithInitArgs, RayResourcePool, RayWorkerGroup
from .ray_cluster import join, leave, lost
from .settings import engine_settings, verl_config
from .waiting import awaited, bounded, results, told
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


# ------------------------------------------------------------------ sampling
# One request to the rollout servers for every answer, and what comes back as samples.


def requests(
    client: Any, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, stop: Sequence[int], seed: int
) -> list[Awaitable[Any]]:
    """`n` requests for each prompt, in the order of the prompts; each has a seed and a name of its own."""
    settings = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or -1,
        "max_tokens": sampling.max_tokens,
        "stop_token_ids": list(stop),
        "logprobs": True,
    }
    return [
        client.generate(
            f"{seed}-{place}-{number}",
            prompt_ids=list(prompt),
            sampling_params={**settings, "seed": (seed + place * n + number) % 2**31},
        )
        for place, prompt in enumerate(prompts)
        for number in range(n)
    ]


def sample_of(output: Any, stop: Sequence[int]) -> Sample:
    """What a server answered. Raises InputError if it gave no tokens, or tokens without their log-probs."""
    ids = tuple(output.token_ids)
    if not ids or output.log_probs is None or len(output.log_probs) != len(ids):
        raise InputError("sampling: a rollout server gave no tokens, or tokens without log-probs")
    return Sample(ids, None, torch.tensor(output.log_probs), ids[-1] in stop)
