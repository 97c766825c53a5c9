"""`rlcsd doctor`: what a run of this config would meet on this machine, one line for each thing that can be wrong.

Versions, driver, memory, disk, attention, collectives, and then the engine itself: it is started with the run's own
config and makes one training step on two questions, in a process of its own, so that a crash or a server that hangs
ends in a line too. Nothing is written but a log file of that process.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from importlib.metadata import requires
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import psutil
import torch
from packaging.requirements import Requirement

from ..config.load import build_method
from ..config.schema import Config, GuardConfig, LocalEngineConfig, VerlEngineConfig
from ..engine.interface import Engine, build_engine, check_engine, checked_sampling
from ..engine.local.memory import checkpoint_bytes, load_shapes, loading_bytes, memory_plan
from ..engine.local.model import resolve_device
from ..engine.verl.gpu_plan import gpu_plan
from ..engine.verl.settings import attention
from ..errors import InputError, MissingError, first_line
from ..methods import method_class
from ..plugins import installed_version
from ..prepare import Prepared, prepare, training_prompt
from ..records import Pair, Problem, Verdict
from ..tasks.task import Task
from ..trainer import Trainer
from .folder import new_folder, with_newest_checkpoint
from .push import check_hub
from .tracking import check_trackers

Status = Literal["ok", "warn", "fail"]
_GIB = 2**30
_DRIVERS = {12: 525, 13: 580}  # the oldest driver branch that runs programs of a CUDA version
_TOKENS = 32  # of the responses of the trial step
# Mean difference between a sampler's log-probs and the scorer's that is no fault, in nats. A server rounds its logits
# to bf16: SmolLM2-135M is 0.06 away.
_TOLERANCE = {"float32": 5e-3, "bfloat16": 0.1}
_LEARNING_RATE = 1e-4  # of the trial step: enough to tell new weights from old ones


@dataclass(frozen=True)
class Finding:
    """One line: whether something is as a run needs it, what was found, and what to do if it is not."""

    status: Status
    name: str
    what: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.status:<5} {self.name:<12} {self.what}" + (f"; {self.advice}" if self.advice else "")


def doctor(config: Config, seconds: float = 600.0) -> Iterator[Finding]:
    """The findings, as they come. `seconds` bounds the start of the engine and its trial step together."""
    try:
        config = with_newest_checkpoint(config)
    except InputError as error:
        yield Finding("fail", "model", str(error))
        return
    for name, check_access in (
        ("folder", lambda: new_folder(config, "")),
        ("trackers", lambda: check_trackers(config.trackers)),
        ("hub", lambda: check_hub(config.push_to_hub)),
    ):
        try:
            check_access()
        except InputError as error:
            yield Finding("fail", name, str(error))
    for check in (_versions, _driver, _gpus, _memory, _disk, _attention, _data):
        try:
            yield from check(config)
        except InputError as error:
            yield Finding("fail", check.__name__.strip("_"), str(error))
    yield from _all_reduce(config)
    try:
        check_engine(config)
    except MissingError as error:
        yield from (Finding("fail", "engine", sentence) for sentence in error.sentences)
    except InputError as error:
        yield Finding("fail", "engine", str(error))
    else:
        yield from _in_a_process(_engine, config, seconds)


# ------------------------------------------------------------------ versions


def tested_versions(gpu: bool) -> dict[str, str]:
    """The versions of constraints-gpu.txt or constraints.txt, which a wheel carries in its package."""
    name = "constraints-gpu.txt" if gpu else "constraints.txt"
    package = Path(__file__).parents[1]
    path = next((path for path in (package / name, package.parents[1] / name) if path.is_file()), None)
    return dict(re.findall(r"^([\w-]+)==(\S+)$", path.read_text(), re.M)) if path is not None else {}


def _wants_gpus(config: Config) -> bool:
    e = config.engine
    if isinstance(e, VerlEngineConfig):
        return e.platform == "cuda"
    return e.device.startswith("cuda") or (e.device == "auto" and torch.cuda.is_available())


def _extras(config: Config) -> set[str]:
    """The extras of this package that the config needs."""
    e = config.engine
    if isinstance(e, VerlEngineConfig):
        return {"verl"} | ({"vllm"} if e.rollout == "vllm" else set())
    return {"vllm"} if e.sampler == "vllm" else set()


def _versions(config: Config) -> Iterator[Finding]:
    """What is installed against the package's requirements, and against the set of versions that was resolved."""
    extras, wrong, found = _extras(config), [], []
    for text in requires("rlcsd") or []:
        wanted = Requirement(text)
        if wanted.marker is not None and not any(wanted.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        here = installed_version(wanted.name)
        if here is None or not wanted.specifier.contains(here, prereleases=True):
            wrong.append(f"{wanted.name} {here or 'is missing'} (needs {wanted.specifier})")
        elif wanted.name in ("torch", "transformers", "vllm", "verl"):
            found.append(f"{wanted.name} {here}")
    what = f"Python {platform.python_version()}, {', '.join(found)}"
    if wrong:
        advice = "install the package again, with its constraints (docs/cluster.md)"
        yield Finding("fail", "versions", ", ".join(wrong), advice)
        return
    gpu = _wants_gpus(config)
    pinned = tested_versions(gpu)
    others = [
        f"{name} {here} (set: {pinned[name]})"
        for name in pinned
        if (here := installed_version(name)) is not None and here.partition("+")[0] != pinned[name]
    ]
    if others:
        lock = "requirements-gpu.lock" if gpu else "constraints.txt"
        yield Finding("warn", "versions", f"not the set of versions in the docs: {', '.join(others)}",
                      f"pip install -c {lock}")  # fmt: skip
    else:
        yield Finding("ok", "versions", what)


# ------------------------------------------------------------------ the machine


def _nvidia_driver() -> str | None:
    """The version of the NVIDIA driver, None where there is none."""
    with suppress(OSError, subprocess.SubprocessError):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        lines = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout.split()
        return lines[0] if lines else None
    return None


def _driver(config: Config) -> Iterator[Finding]:
    driver, cuda, wanted = _nvidia_driver(), torch.version.cuda, _wants_gpus(config)
    if not wanted and driver is None:
        yield Finding("ok", "driver", "no NVIDIA driver, and none is needed: the run is on the CPU")
    elif driver is None:
        yield Finding(
            "fail", "driver", "no NVIDIA driver answers nvidia-smi", "install one, or run on a machine with GPUs"
        )
    elif cuda is None:
        status: Status = "fail" if wanted else "warn"
        advice = "pip install -c requirements-gpu.lock torch"
        yield Finding(status, "driver", f"driver {driver}, but torch {torch.__version__} is built for CPUs", advice)
    else:
        oldest = _DRIVERS.get(int(cuda.partition(".")[0]), 0)
        what = f"driver {driver}, torch built with CUDA {cuda}"
        if int(driver.partition(".")[0]) < oldest:
            yield Finding("fail", "driver", what, f"CUDA {cuda} needs driver {oldest} or newer")
        elif not torch.cuda.is_available():
            yield Finding(
                "fail", "driver", f"{what}, and torch sees no GPU", "see CUDA_VISIBLE_DEVICES and `nvidia-smi`"
            )
        else:
            yield Finding("ok", "driver", what)


def _gpu_count(config: Config) -> int:
    """The GPUs that the run asks of this machine."""
    if not _wants_gpus(config):
        return 0
    return config.engine.gpus_per_node if isinstance(config.engine, VerlEngineConfig) else 1


def _gpus(config: Config) -> Iterator[Finding]:
    wanted, there = _gpu_count(config), torch.cuda.device_count()
    if not wanted:
        return
    if there < wanted:
        key = "engine.gpus_per_node" if isinstance(config.engine, VerlEngineConfig) else "engine.device"
        yield Finding("fail", "GPUs", f"{there} here, and the run asks for {wanted}", f"lower {key}")
        return
    for index in range(wanted):
        free, total = torch.cuda.mem_get_info(index)
        what = f"{index}: {torch.cuda.get_device_name(index)}, {free / _GIB:.0f} of {total / _GIB:.0f} GiB free"
        taken = free < 0.95 * total
        advice = "another program holds the rest; end it (`nvidia-smi`)" if taken else ""
        yield Finding("warn" if taken else "ok", "GPU", what, advice)


def _memory(config: Config) -> Iterator[Finding]:
    """The plan's need against the free memory of the device, and of the host."""
    method, host = build_method(config), float(psutil.virtual_memory().available)
    shape, teacher = load_shapes(config, method)
    if isinstance(config.engine, VerlEngineConfig):
        plan = gpu_plan(shape, config, method, teacher)
        if torch.cuda.is_available():
            total = torch.cuda.get_device_properties(0).total_memory
            need = max(plan.peak, plan.resting + config.engine.rollout_memory * total)
            yield _fits("memory", "of each GPU", need, total, "see `rlcsd train --dry-run` for what lowers it")
        loading = plan.whole + plan.host * config.engine.gpus_per_node
    else:
        device = resolve_device(config.engine.device)
        need = memory_plan(shape, config, method, teacher)["peak"]
        advice = "lower engine.sample_gib or engine.micro_batch_tokens, or set model.gradient_checkpointing=true"
        if device.type == "cuda":
            yield _fits("memory", f"of {device}", need, torch.cuda.mem_get_info(device)[0], advice)
        else:
            yield _fits("memory", "of this machine", need, host, advice)
            return
        loading = loading_bytes(shape, config)
    yield _fits("host memory", "of this machine", loading, host, "use a machine with more memory")


def _fits(name: str, where: str, need: float, free: float, advice: str) -> Finding:
    what = f"{need / _GIB:.1f} GiB needed (estimate), {free / _GIB:.1f} GiB free {where}"
    return Finding("ok", name, what) if need <= free else Finding("warn", name, what, advice)


def _disk(config: Config) -> Iterator[Finding]:
    """Room for the checkpoints that are kept at a time, one more while it is written included."""
    method = build_method(config)
    shape, _ = load_shapes(config, method)
    each = checkpoint_bytes(shape, config, method)
    count = (config.keep_last or 10) + int(config.keep_best) + 1
    folder = next(path for path in (Path(config.output_dir).resolve(), *Path(config.output_dir).resolve().parents)
                  if path.is_dir())  # fmt: skip
    free = shutil.disk_usage(folder).free
    what = f"{count} checkpoints of about {each / _GIB:.1f} GiB, {free / _GIB:.0f} GiB free in {folder}"
    if each > free:
        yield Finding("fail", "disk", what, "choose another output_dir: not one checkpoint fits")
    elif count * each > free:
        yield Finding("warn", "disk", what, "lower keep_last, or choose another output_dir")
    else:
        yield Finding("ok", "disk", what)
    if not os.access(folder, os.W_OK):
        yield Finding("fail", "disk", f"{folder} cannot be written to", "choose another output_dir")


def _attention(config: Config) -> Iterator[Finding]:
    """The attention that the trainer takes, and on a GPU whether vLLM samples."""
    if not isinstance(config.engine, VerlEngineConfig):
        yield Finding("ok", "attention", "sdpa of torch")
        if _wants_gpus(config) and config.engine.sampler == "auto" and not find_spec("vllm"):
            advice = "pip install -c requirements-gpu.lock 'rlcsd[vllm]', which samples many times as fast"
            yield Finding("warn", "sampler", "the local one: vLLM is not installed", advice)
        return
    chosen = attention(config)
    slow = chosen == "sdpa" and config.engine.platform == "cuda" and config.model.dtype == "bfloat16"
    advice = "optional: pip install flash-attn --no-build-isolation" if slow and not find_spec("flash_attn") else ""
    yield Finding("ok", "attention", chosen, advice)


def _data(config: Config) -> Iterator[Finding]:
    """Whether a run would begin: task, prompts and limits, as the plan checks them."""
    try:
        prepared = prepare(config)
    except MissingError as error:
        yield from (Finding("fail", "data", sentence) for sentence in error.sentences)
        return
    sets = sum(map(len, prepared.task.evaluations.values()))
    yield Finding("ok", "data", f"{len(prepared.problems)} training problems, {sets} for evaluation")


# ------------------------------------------------------------------ collectives


def _all_reduce(config: Config, seconds: float = 120.0) -> Iterator[Finding]:
    """Sum a tensor over all GPUs asked for by NCCL, or over two processes by gloo where the run is on the CPU."""
    gpus = _gpu_count(config)
    if gpus == 1 or gpus > torch.cuda.device_count():
        return
    backend, ranks = ("nccl", gpus) if gpus else ("gloo", 2)
    with tempfile.TemporaryDirectory(prefix="rlcsd-doctor-") as folder:
        command = [sys.executable, "-m", "rlcsd.engine.all_reduce", backend, str(ranks), f"{folder}/meet"]
        processes = [
            subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for rank in range(ranks)
        ]
        end, failed = time.monotonic() + seconds, ""
        rates = []
        for rank, process in enumerate(processes):
            try:
                said = process.communicate(timeout=max(0.1, end - time.monotonic()))[0].strip().splitlines()
            except subprocess.TimeoutExpired:
                failed = failed or f"rank {rank} of {ranks} had no result after {seconds:.0f} seconds"
                continue
            if process.returncode:
                failed = failed or f"rank {rank} of {ranks}: {said[-1] if said else 'ended without a word'}"
            else:
                rates.append(float(said[-1]))
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    where = f"{ranks} GPUs" if gpus else f"{ranks} processes on the CPU"
    if failed:
        advice = "NCCL_DEBUG=INFO shows why" if gpus else "see GLOO_SOCKET_IFNAME"
        yield Finding("fail", "all-reduce", f"{backend} over {where}: {failed}", advice)
    else:
        yield Finding("ok", "all-reduce", f"{backend} over {where}, {min(rates):.1f} GB/s")


# ------------------------------------------------------------------ the engine, in a process of its own


def _in_a_process(
    target: Callable[[Connection, Config, str], None], config: Config, seconds: float
) -> Iterator[Finding]:
    """The findings that `target` sends, and one more if its process crashes or takes longer than `seconds`."""
    handle, log = tempfile.mkstemp(prefix="rlcsd-doctor-", suffix=".log")
    os.close(handle)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(theirs, config, log))
    process.start()
    theirs.close()
    end, failed = time.monotonic() + seconds, False
    try:
        while True:
            if not ours.poll(max(0.0, end - time.monotonic())):
                failed = True
                advice = f"engine.timeout and the log {log} may say what it waits for"
                yield Finding("fail", "engine", f"no answer within {seconds:.0f} seconds", advice)
                return
            finding = ours.recv()
            if finding is None:
                return
            failed = failed or finding.status == "fail"
            yield finding
    except EOFError:
        process.join(10)
        failed = True
        code = process.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        yield Finding("fail", "engine", f"its process ended with {how}", f"see {log}")
    finally:
        process.join(0 if failed else 60)
        if process.is_alive():
            process.terminate()
            process.join(20)
        if process.is_alive():
            process.kill()
        if not failed:
            os.unlink(log)


def _engine(pipe: Connection, config: Config, log: str) -> None:
    """Start the engine of the config and try it; findings go to `pipe`, what libraries print to `log`."""
    file = os.open(log, os.O_WRONLY)
    os.dup2(file, 1)
    os.dup2(file, 2)
    try:
        for finding in _trial(config):
            pipe.send(finding)
    except InputError as error:
        pipe.send(Finding("fail", "engine", str(error), f"log: {log}"))
    except Exception as error:  # of whatever library; its traceback is in the log
        import traceback

        traceback.print_exc()
        pipe.send(Finding("fail", "engine", f"{type(error).__name__}: {first_line(error)}", f"see {log}"))
    pipe.send(None)


def _trial(config: Config) -> Iterator[Finding]:
    """Start, sample, score, one training step, sample and score again."""
    method, begun = build_method(config), time.perf_counter()
    checked = config.engine.self_check if isinstance(config.engine, LocalEngineConfig | VerlEngineConfig) else False
    with closing(build_engine(config, method)) as engine:
        more = ", this model's self-check passed" if checked else ""
        yield Finding("ok", "engine", f"{config.engine.name} started in {time.perf_counter() - begun:.1f} s{more}")
        small = _small(config)
        allowed = _TOLERANCE[config.model.dtype]
        pairs, difference, seconds = _sampled_and_scored(engine, small)
        before = engine.score(pairs, "policy").log_prob
        yield _parity("sampling", difference, allowed, f"in {seconds:.1f} s")
        if method.hinted:
            engine.score(pairs, "teacher")
        begun = time.perf_counter()
        Trainer(small, engine).step(1)
        yield Finding("ok", "step", f"one training step on two questions in {time.perf_counter() - begun:.1f} s")
        moved = float((engine.score(pairs, "policy").log_prob - before).abs().mean())
        _, difference, _ = _sampled_and_scored(engine, small)
        yield _parity("weights", difference, allowed, f"after an update that moved them by {moved:.3g}")


def _parity(name: str, difference: float, allowed: float, remark: str) -> Finding:
    what = f"sampler and scorer differ by {difference:.2g} nats on average (at most {allowed:g}) {remark}"
    if difference <= allowed:
        return Finding("ok", name, what)
    return Finding(
        "fail",
        name,
        what,
        "the run would train on wrong ratios: use the versions of the docs, or another engine.sampler",
    )


def _sampled_and_scored(engine: Engine, small: Prepared) -> tuple[list[Pair], float, float]:
    """Two responses to each question, the mean difference of their log-probs in nats, and the seconds of sampling."""
    begun = time.perf_counter()
    prompts = [training_prompt(engine.tokenizer, small.task, small.config, problem) for problem in small.problems]
    groups = engine.sample(prompts, 2, replace(checked_sampling(small.config), max_tokens=_TOKENS), seed=1)
    seconds = time.perf_counter() - begun
    samples = [(tuple(prompt), one) for prompt, group in zip(prompts, groups, strict=True) for one in group]
    pairs = [Pair(prompt, one.ids, one.sampling_mask) for prompt, one in samples]
    sampled = torch.cat([one.sampled_log_probs for _, one in samples])
    scored = engine.score(pairs, "policy").kept_log_prob.cpu()
    return pairs, float((sampled - scored).abs().mean()), seconds


def _small(config: Config) -> Prepared:
    """One step on two questions that need no data; every other response counts as correct, so that there is an update.

    By grpo, because responses of a few tokens hold no answer to make hints of. The engine keeps the run's own limits.
    """
    verdicts = [Verdict(bool(right), float(right), feedback="Look at it again.") for right in (0, 1)]
    judged: list[str] = []

    def alternate(response: str, answer: str) -> Verdict:
        judged.append(response)
        return verdicts[len(judged) % 2]

    questions = ("What is 17 + 25?", "A farmer has 12 sheep and buys 5 more, then sells 3. How many are there now?")
    problems = [Problem(question, answer, solution=f"It is {answer}.") for question, answer in
                zip(questions, ("42", "14"), strict=True)]  # fmt: skip
    task = Task("doctor", problems, {}, alternate, verifier_seconds=None)
    changes = {
        "method": method_class("grpo").Config(name="grpo"),
        "steps": 1, "prompts_per_step": 2, "prompts_per_update": 2, "group_size": 4, "warmup_steps": 0,
        "learning_rate": _LEARNING_RATE, "lr_scheduler_type": "constant", "lr_scheduler_kwargs": {},
        "refill_batches": 0, "guard": GuardConfig(), "max_prompt_tokens": max(256, config.max_prompt_tokens),
        "sampling": config.sampling.model_copy(update={"max_tokens": min(_TOKENS, config.sampling.max_tokens)}),
        "evaluation": config.evaluation.model_copy(update={"patience": 0}),
    }  # fmt: skip
    return prepare(config.model_copy(update=changes), task)


def exit_code(findings: Sequence[Finding]) -> int:
    """1 if anything failed, else 0."""
    return int(any(finding.status == "fail" for finding in findings))
