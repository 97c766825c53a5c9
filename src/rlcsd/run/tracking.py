"""Metric trackers: `metrics.jsonl` always, and TensorBoard, wandb, SwanLab or trackio by name."""

from __future__ import annotations

import importlib
import importlib.util
import math
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..errors import MissingError
from ..storage import append_jsonl, write_text


class Tracker(Protocol):
    """Receives the metrics of each step."""

    def log(self, metrics: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...


class JsonlTracker:
    """Appends one JSON object per step to a file; values that are not finite become null."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        plain = {name: value if math.isfinite(value) else None for name, value in sorted(metrics.items())}
        append_jsonl(self.path, {"step": step, **plain})

    def close(self) -> None:
        """Nothing to do: the file is closed after each record."""


class TensorBoardTracker:
    """Event files of TensorBoard. A run that resumes after step `start` hides what was logged after that step."""

    def __init__(self, folder: Path, start: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=start + 1 if start else None)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            if math.isfinite(value):
                self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


def run_id(folder: Path) -> str:
    """A random id, made once and kept in the run folder: a tracker recognises a resumed run by it."""
    path = folder / "run_id"
    if not path.is_file():
        write_text(path, uuid.uuid4().hex[:21])  # 21 characters: what SwanLab asks for
    return path.read_text(encoding="utf-8").strip()


class RunTracker:
    """wandb, SwanLab or trackio, which share `init`, `log` and `finish`. A resumed run continues its own record."""

    def __init__(self, library: str, project: str, config: Mapping[str, Any], folder: Path) -> None:
        self.library: Any = importlib.import_module(library)
        options: dict[str, Any] = {"project": project, "config": dict(config), "resume": "allow"}
        match library:
            case "wandb":
                options |= {"name": folder.name, "id": run_id(folder), "dir": str(folder)}
            case "swanlab":
                options |= {"experiment_name": folder.name, "id": run_id(folder), "logdir": str(folder / "swanlab")}
            case _:
                options |= {"name": f"{folder.name}-{run_id(folder)[:6]}"}  # trackio knows a run by its name alone
        self.library.init(**options)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.library.log({name: value for name, value in metrics.items() if math.isfinite(value)}, step=step)

    def close(self) -> None:
        self.library.finish()


def check_trackers(names: Sequence[str]) -> None:
    """Raise MissingError if the library of a tracker is not installed."""
    absent = [name for name in names if importlib.util.find_spec(name) is None]
    if absent:
        raise MissingError(*(f"trackers: {name} is not installed; pip install 'rlcsd[trackers]'" for name in absent))


def open_trackers(
    names: Sequence[str], folder: Path, project: str, config: Mapping[str, Any], start: int = 0
) -> list[Tracker]:
    """The JSONL tracker and those named. `start` is the step after which the run starts. See `check_trackers`."""
    trackers: list[Tracker] = [JsonlTracker(folder / "metrics.jsonl")]
    for name in names:
        if name == "tensorboard":
            trackers.append(TensorBoardTracker(folder / "tensorboard", start))
        else:
            trackers.append(RunTracker(name, project, config, folder))
    return trackers
