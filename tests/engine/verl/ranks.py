"""Ranks without Ray: processes that each hold workers of the engine, called through pipes, and a sampler beside them.

Starting processes takes far longer than building a small model in them, so many settings are tested in one pair.
"""

from __future__ import annotations

import os
import resource
import socket
import traceback
from multiprocessing import get_context
from typing import Any

import psutil

from rlcsd.config.schema import Config


def _serve(rank: int, ranks: int, port: int, pipe: Any) -> None:
    """The loop of one rank: build workers by name, and call their methods."""
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK="0", LOCAL_WORLD_SIZE="1", MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port), VERL_PLATFORM="cpu", VERL_USE_EXTERNAL_MODULES="tests.engine.verl.plugins",
    )  # fmt: skip
    import ray

    from rlcsd.engine.verl.settings import verl_config
    from rlcsd.engine.verl.worker import RlcsdWorker

    kept: list[Any] = []  # objects that workers send; an index stands for Ray's reference
    ray.put = lambda value: kept.append(value) or len(kept) - 1
    ray.get = lambda reference: kept[reference]
    workers: dict[str, RlcsdWorker] = {}
    while True:
        name, method, arguments = pipe.recv()
        if method == "end":
            return
        try:
            if method == "build":
                config, model = arguments
                made = verl_config(config, model).actor_rollout_ref
                workers[name] = RlcsdWorker(config=made, role="actor", run=config)
                answer: Any = workers[name].start(policy=model is None)
            elif method == "weights":
                sent, peft_config = workers[name].actor.engine.get_per_tensor_param(base_sync_done=arguments[0])
                named = {key: tensor.detach().clone() for key, tensor in sent}
                answer = (named, peft_config) if rank == 0 else None
            elif method == "memory":  # MiB now, and at most until now
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                answer = (psutil.Process().memory_info().rss / 2**20, peak)
            else:
                answer = getattr(workers[name], method)(*arguments)
            pipe.send((answer, None))
        except Exception as error:
            traceback.print_exc()
            pipe.send((None, f"{type(error).__name__}: {error}"))


class Ranks:
    """`count` processes over gloo."""

    def __init__(self, count: int) -> None:
        self.count = count
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        context, self.pipes, self.processes = get_context("spawn"), [], []
        for rank in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, count, port, theirs), daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)

    def ask(self, name: str, method: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
        for pipe, some in zip(self.pipes, arguments, strict=True):
            pipe.send((name, method, some))
        answers = [pipe.recv() for pipe in self.pipes]
        for _, error in answers:
            if error is not None:
                raise RuntimeError(error)
        return [answer for answer, _ in answers]

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send(("", "end", ()))
        for process in self.processes:
            process.join(20)
            process.kill()


class Piped:
    """A group of workers, with the interface of `servers.Workers`."""

    def __init__(self, ranks: Ranks, name: str, config: Config, model: str | None = None) -> None:
        self.all, self.name, self.settings = ranks, name, config.engine
        self.ranks = 1 + max(ranks.ask(name, "build", [(config, model)] * ranks.count))

    def call(self, method: str, what: str, *arguments: Any) -> list[Any]:
        return self.all.ask(self.name, method, [arguments] * self.all.count)

    def call_each(self, method: str, what: str, tasks: Any) -> list[Any]:
        share = self.settings.sequence_parallel
        each = [(tasks[rank // share],) for rank in range(self.all.count)]
        return self.all.ask(self.name, method, each)[::share]


class Sampler:
    """The interface of `servers.Servers`: the stand-in's decoder in this process, which gets the policy's weights."""

    def __init__(self, policy: Piped, config: Config) -> None:
        from types import SimpleNamespace

        from rlcsd.engine.local.model import resolve_path
        from rlcsd.engine.verl.settings import adapters_alone, verl_config

        from .plugins import Decoder

        limit = verl_config(config).actor_rollout_ref.rollout.max_model_len
        adapters = adapters_alone(config)
        settings = SimpleNamespace(dtype=config.model.dtype, max_model_len=limit)
        self.policy, self.client, self.awake, self.base_sent = policy, self, False, False
        self.decoder = Decoder(settings, resolve_path(config.model.path), adapters)
        self.decoder.sleep()

    def wait_for(self, requests: Any) -> list[Any]:
        import asyncio

        async def answers() -> list[Any]:
            return await asyncio.gather(*requests)

        return asyncio.run(answers())

    def wake(self, version: int) -> None:
        """As verl's `update_weights`."""
        if self.awake:
            return
        self.decoder.wake_up(["weights"])
        named, peft_config = self.policy.call("weights", "", True)[0]
        if peft_config is not None and not self.base_sent:
            base, _ = self.policy.call("weights", "", False)[0]
            self.decoder.update_weights(base, peft_config, False)
        self.decoder.update_weights(named, peft_config, True)
        self.decoder.wake_up(["kv_cache"])
        self.awake = self.base_sent = True

    def sleep(self) -> None:
        if self.awake:
            self.decoder.sleep()
        self.awake = False

    async def generate(self, request_id: str, *, prompt_ids: Any, sampling_params: Any) -> Any:
        return self.decoder.decode([prompt_ids], sampling_params)[0]


class PipedCluster:
    """The interface of `servers.Cluster`."""

    def __init__(self, ranks: Ranks, config: Config, teacher_model: str | None = None) -> None:
        self.policy = Piped(ranks, "policy", config)
        self.teacher = Piped(ranks, "teacher", config, teacher_model) if teacher_model else None
        self.servers = Sampler(self.policy, config)

    def close(self) -> None:
        return None
