"""Run folders: the name of a new one, the lock on it, what is written about the machine, and configs read back from it.

`rlcsd train --resume RUN`, `rlcsd eval model.path=RUN` and `rlcsd chat RUN` all get their config here.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock, Timeout

from ..config.load import changed, from_yaml, load, parsed, split_override
from ..config.schema import Config, is_free, may_change_on_resume
from ..engine.interface import Engine
from ..errors import InputError
from ..methods import HintedConfig
from ..plugins import installed_version
from ..report.run_results import method_label
from ..tasks.given_task import AGAIN, GivenTaskParameters, check_same, read_copy, record
from ..tasks.registry import changed_task
from ..tasks.task import Task
from ..validation import flat_config
from .checkpoint import latest_checkpoint

# ------------------------------------------------------------------ a folder


def new_folder(config: Config, task_name: str) -> Path:
    """`output_dir/run_name`, or an unused name made of task, method, seed and time.

    Raises:
        InputError: the folder `run_name` holds a run already, or `output_dir` cannot be written.
    """
    base = Path(config.output_dir)
    there = next(path for path in (base, *base.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"output_dir={config.output_dir}: {there} is a file; choose a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"output_dir={config.output_dir}: nothing can be written in {there}; choose another folder")
    if config.run_name:
        check_empty(base / config.run_name)
        return base / config.run_name
    return unused(base / f"{default_name(config, task_name)}-{time.strftime('%Y%m%d-%H%M%S')}")


def check_empty(folder: Path) -> None:
    """Raise InputError if the folder of a new run holds a run already."""
    if (folder / "config.yaml").exists():
        raise InputError(
            f"run_name={folder.name}: {folder} already holds a run; choose another name or pass --resume {folder}"
        )


def default_name(config: Config, task_name: str) -> str:
    """What a run without `run_name` is called, but for the time."""
    method = method_label(config.method.name, getattr(config.method, "objective", None))
    return f"{task_name}-{method.rpartition(':')[2]}-seed{config.seed}"


def unused(folder: Path) -> Path:
    """The folder, or if there is such a one already, the first free one of `folder-2`, `folder-3` …"""
    found, number = folder, 2
    while found.exists():
        found, number = folder.with_name(f"{folder.name}-{number}"), number + 1
    return found


def lock_new(folder: Path, named: bool) -> RunLock:
    """Take the folder of a new run, which was chosen before the model was loaded.

    Where another process has taken it since, a name that was `named` by the user is refused, and one made of the time
    gets a number.

    Raises:
        InputError: the folder holds a run, is another process's, or cannot be written.
    """
    while True:
        lock = RunLock(folder)
        try:
            lock.acquire(new=not named)
        except FileExistsError:
            folder = unused(folder)
            continue
        try:
            check_empty(folder)
        except InputError:
            lock.release()
            raise
        return lock


class RunLock:
    """A lock file that keeps two processes from writing to one run folder.

    It is held from the start of a run to its end; the system frees it when the process ends, however it ends.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = FileLock(folder / ".lock", timeout=0)

    def acquire(self, new: bool = False) -> None:
        """Make the folder, which must not be there yet if it is to be `new`, and take the lock.

        Raises:
            FileExistsError: another process has made the folder.
            InputError: another process has the lock, or nothing can be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=not new)
            self._lock.acquire()
        except Timeout:
            raise InputError(
                f"{self.folder}: another process is training in this run folder; wait for it, stop it, or choose "
                "another run_name"
            ) from None
        except OSError as error:
            if new and isinstance(error, FileExistsError):
                raise
            raise InputError(
                f"output_dir={self.folder.parent}: the run folder cannot be written there ({error.strerror})"
            ) from None

    def check(self) -> None:
        """Raise InputError if another process has the lock now. Called before anything slow is done."""
        if self.folder.is_dir():
            self.acquire()
            self.release()

    def release(self) -> None:
        self._lock.release()


def environment(engine: Engine) -> dict[str, Any]:
    """Versions, threads and device of a run: what its numbers depend on beside the config. Goes to environment.json."""
    names = ("rlcsd", "torch", "transformers", "tokenizers", "peft", "numpy", "vllm", "verl", "ray")
    device = engine.device
    cpu = platform.processor() or platform.machine()
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu,
        "packages": {name: installed_version(name) for name in names},
    }


# ------------------------------------------------------------------ configs of runs


def is_run(folder: Path) -> bool:
    """Whether `folder` is the folder of a run. A model folder, which has a config.json, is none."""
    return (folder / "config.yaml").is_file() and not (folder / "config.json").is_file()


def with_newest_checkpoint(config: Config) -> Config:
    """The config with the newest whole checkpoint where `model.path` or `method.teacher_model` is a run's folder.

    Raises:
        InputError: the run has no checkpoint that is whole.
    """
    model = config.model.model_copy(update={"path": _checkpoint_of("model.path", config.model.path)})
    method = config.method
    if isinstance(method, HintedConfig) and method.teacher_model is not None:
        teacher = _checkpoint_of("method.teacher_model", method.teacher_model)
        method = method.model_copy(update={"teacher_model": teacher})
    return config.model_copy(update={"model": model, "method": method})


def _checkpoint_of(key: str, path: str) -> str:
    folder = Path(path)
    if not is_run(folder):
        return path
    newest = latest_checkpoint(folder / "checkpoints")
    if newest is None:
        raise InputError(f"{key}={path}: this run has no checkpoint yet")
    return str(newest)


def with_given_task(config: Config, task: Task) -> tuple[Config, Task]:
    """The config with the record of a task given from Python, and the task with what the config changes of it."""
    parameters = config.task
    if isinstance(parameters, GivenTaskParameters) and not parameters.is_recorded:
        changes = {k: v for k, v in parameters.model_dump(exclude_unset=True).items() if k not in ("name", "kind")}
        task = changed_task(task.name, task, changes) if changes else task
    return config.model_copy(update={"task": record(task)}), task


def with_task_of_run(
    folder: Path, config: Config, task: Task | None, warn: Callable[[str], None]
) -> tuple[Config, Task | None]:
    """The config and the task of the run in `folder` that is resumed or evaluated.

    A task that was given from Python is read from its copy in the folder, unless it is given again as `task`. None: it
    is the config that describes the task.

    Raises:
        InputError: `task` is another one, or none is given and it cannot be rebuilt.
    """
    if task is None and (folder / "task.json").is_file():  # of a version that kept no problems
        raise InputError(
            f"{folder}: its task was given from Python and is not kept in the folder; pass it again: {AGAIN}"
        )
    if not isinstance(config.task, GivenTaskParameters):
        return config, task
    if task is None:
        return config, read_copy(folder, config.task, warn)
    check_same(folder, task, config.task)
    again = record(task).model_copy(update={"verifier": config.task.verifier})
    return config.model_copy(update={"task": again}), task


def resumed_config(folder: Path, overrides: Sequence[str] = ()) -> Config:
    """The config of the run in `folder`, changed by overrides of keys that a resumed run may change.

    Raises:
        InputError: there is no run, or an override is of another key.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise InputError(
            f"--resume {folder}: no such file {path}; if the run ended before it wrote its config, start it again"
        )
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if not is_free(key):
            raise InputError(
                f"{override}: a resumed run keeps its {key}, or it would be another run; these keys may change: "
                f"{', '.join(may_change_on_resume())}. A new run from its weights: "
                f"`rlcsd train model.path={folder} {override}`"
            )
    return changed(from_yaml(path), overrides)


def plugins_of(folder: Path) -> list[str]:
    """The code outside the package that a run's config names, as `KEY=FILE.py:NAME`; nothing of it is imported."""
    try:
        values = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8", errors="replace"))
    except (OSError, yaml.YAMLError, ValueError):
        return []  # `resumed_config` raises for it
    flat = flat_config(values) if isinstance(values, dict) else {}
    named = [(key, flat.get(key)) for key in ("method.name", "task.name", "task.verifier")]
    rewards = flat.get("task.rewards")
    for number, reward in enumerate(rewards if isinstance(rewards, list) else []):
        named.append((f"task.rewards.{number}.verifier", reward.get("verifier") if isinstance(reward, dict) else None))
    return [f"{key}={value}" for key, value in named if isinstance(value, str) and ":" in value]


def evaluated_run(overrides: Sequence[str]) -> Path | None:
    """The run folder that `model.path` names among the overrides of `rlcsd eval`; None if it is no run."""
    paths = [override for override in overrides if split_override(override)[0] == "model.path"]
    if not paths:
        return None
    ((_, path),) = parsed(paths[-1:])
    return Path(str(path)) if is_run(Path(str(path))) else None


def evaluation_config(overrides: Sequence[str]) -> Config:
    """The config of `rlcsd eval`.

    Where `model.path` is a run's folder, the run's model, task and evaluation settings are taken, changed by the
    overrides, with the weights of its newest checkpoint.

    Raises:
        InputError: as `load` does, or the run has no checkpoint.
    """
    overrides = [override.lstrip("+") for override in overrides]
    chosen = {override.partition("=")[0]: override.partition("=")[2] for override in overrides}
    folder = evaluated_run(overrides)
    if folder is None:
        return with_newest_checkpoint(load(["method=grpo", *overrides, "kl_coefficient=0"]))
    run = from_yaml(folder / "config.yaml")
    # Parameters of the run's task need not be those of the default task; another task is chosen whole.
    others = [override for override in overrides if "task" in chosen or not override.startswith("task.")]
    config = load(["method=grpo", *others, "kl_coefficient=0"])
    return with_newest_checkpoint(_with_settings_of(run, config, overrides))


def _with_settings_of(run: Config, config: Config, overrides: Sequence[str]) -> Config:
    """`config` with task, evaluation and model of `run`, except for sections that an override chooses as a whole."""
    replaced = {override.partition("=")[0] for override in overrides}
    sections = [section for section in ("task", "evaluation", "model") if section not in replaced]
    run = changed(run, [override for override in overrides if override.partition(".")[0] in sections])
    found = {section: getattr(run, section) for section in sections}
    if "model" in found:  # a checkpoint is a whole model, or an adapter that names its base
        plain = {"path": config.model.path, "lora": None, "quantization": None, "gguf_file": None}
        found["model"] = found["model"].model_copy(update=plain)
    return config.model_copy(update=found)
