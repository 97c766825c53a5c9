"""Metric trackers: `metrics.jsonl` always, and TensorBoard, wandb, SwanLab or trackio by name."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..errors import InputError, MissingError, first_line
from ..storage import append_jsonl, write_text

Sample = Mapping[str, Any]  # a response as `rollout_log.sample_rows` describes it, in columns that all rows have


class Tracker(Protocol):
    """Receives the metrics of each step, and some responses of some steps."""

    def log(self, metrics: Mapping[str, float], step: int) -> None: ...

    def log_samples(self, rows: Sequence[Sample], step: int) -> None: ...

    def close(self) -> None: ...


class JsonlTracker:
    """Appends one JSON object per step to a file; values that are not finite become null."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        plain = {name: value if math.isfinite(value) else None for name, value in sorted(metrics.items())}
        append_jsonl(self.path, {"step": step, **plain})

    def log_samples(self, rows: Sequence[Sample], step: int) -> None:
        """Nothing to do: `rollouts.jsonl` has the responses."""

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

    def log_samples(self, rows: Sequence[Sample], step: int) -> None:
        """One text with the rows below each other; TensorBoard shows Markdown, in which an indented block is plain."""
        self.writer.add_text("samples", "\n\n---\n\n".join(map(_markdown, rows)), step)

    def close(self) -> None:
        self.writer.close()


def _markdown(row: Sample) -> str:
    parts = []
    for name, value in row.items():
        lines = str(value).splitlines() or [""]
        short = len(lines) == 1 and not isinstance(value, str)
        parts.append(
            f"**{name}**: {lines[0]}" if short else "\n".join([f"**{name}**", "", *(f"    {x}" for x in lines)])
        )
    return "\n\n".join(parts)


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
        if library == "wandb" and _WANDB_MODE in os.environ:
            options["mode"] = os.environ[_WANDB_MODE]  # set since an earlier run of this process, which wandb ignores
        try:
            self.library.init(**options)
        except Exception as error:  # no network, a key that is not valid: each library has its own
            without = f"; {_WANDB_MODE}=offline keeps it on this machine" if library == "wandb" else ""
            reason = first_line(error)
            raise InputError(f"trackers: {library} could not begin a record ({reason}){without}") from None

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.library.log({name: value for name, value in metrics.items() if math.isfinite(value)}, step=step)

    def log_samples(self, rows: Sequence[Sample], step: int) -> None:
        """A table of wandb or trackio, texts of SwanLab, under the name `samples`."""
        name = self.library.__name__
        if name == "swanlab":
            self.library.log({"samples": [self.library.Text(_markdown(row)) for row in rows]}, step=step)
            return
        columns = list(rows[0])
        data = [[row[column] for column in columns] for row in rows]
        if name == "trackio":
            try:
                import pandas
            except ImportError:
                return  # its tables are DataFrames
            table = self.library.Table(dataframe=pandas.DataFrame(data, columns=columns))
        else:
            table = self.library.Table(columns=columns, data=data)
        self.library.log({"samples": table}, step=step)

    def close(self) -> None:
        self.library.finish()


def check_trackers(names: Sequence[str]) -> None:
    """Raise MissingError if the library of a tracker is not installed, or wandb has no login."""
    absent = [name for name in names if importlib.util.find_spec(name) is None]
    if absent:
        raise MissingError(*(f"trackers: {name} is not installed; pip install 'rlcsd[trackers]'" for name in absent))
    if "wandb" in names and not _wandb_can_begin():
        raise MissingError(
            "trackers: wandb has no login; `wandb login`, set WANDB_API_KEY, or keep the record on this machine with "
            "WANDB_MODE=offline"
        )


_WANDB_MODE = "WANDB_MODE"


def _wandb_can_begin() -> bool:
    """Whether wandb is offline or has a key. It is asked without a prompt, and without the network."""
    wandb = importlib.import_module("wandb")
    if (os.environ.get(_WANDB_MODE) or wandb.setup().settings.mode) in ("offline", "disabled", "dryrun"):
        return True
    if "prompt" in inspect.signature(wandb.login).parameters:  # from wandb 0.29 on
        try:
            return bool(wandb.login(prompt=False, verify=False))
        except Exception:
            return False
    return wandb.api.api_key is not None


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
