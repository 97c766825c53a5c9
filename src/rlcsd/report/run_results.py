"""Run folders read for comparison: what a run was, how it went, and how it answered each problem."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..evaluation.summary import Summary
from ..storage import read_jsonl
from .rollout_reader import read_config

Outcomes = Mapping[str, Mapping[str, float]]  # set → problem → share of correct responses


@dataclass(frozen=True)
class RunResult:
    """What one run folder says. `evaluations` maps a set to its (step, mean) points, `outcomes` are those of the last
    evaluation, and `config` is flat: `method.name`, `seed` …"""

    label: str
    seed: int
    metrics: list[dict[str, Any]]
    evaluations: Mapping[str, list[tuple[int, float]]]
    outcomes: Outcomes = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def sets(self) -> list[str]:
        """The evaluation sets: each set of one kind of problem, the kinds of a set of several, and no average."""
        names = [name for name in self.evaluations if name != "average"]
        return [name for name in names if not any(other.startswith(f"{name}: ") for other in names)]


def summaries_of(record: dict[str, Any]) -> list[Summary]:
    """The summaries of one record of `evaluations.jsonl`."""
    return [Summary(**{**one, "pass_at": {int(k): v for k, v in one["pass_at"].items()}}) for one in record["sets"]]


def curve(metrics: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric, where it was logged."""
    points = [(record["step"], record[name]) for record in metrics if record.get(name) is not None]
    return [step for step, _ in points], [value for _, value in points]


def read_run(folder: Path, keys: Sequence[str] = ("method.name",)) -> RunResult:
    """A finished or running run; its label is the values of `keys` in its config.

    Raises:
        InputError: the folder holds no run, or `keys` has a name that its config does not have.
    """
    config = _flat(read_config(folder))
    for key in keys:
        if key not in config:
            raise InputError(f"--by {key}: {folder} has no such key in its config; one is for example method.name")
    evaluations: dict[str, list[tuple[int, float]]] = defaultdict(list)
    records = read_jsonl(folder / "evaluations.jsonl")
    for record in records:
        for summary in summaries_of(record):
            evaluations[summary.name].append((record["step"], summary.mean))
    outcomes = records[-1].get("outcomes", {}) if records else {}
    label = " ".join(str(config[key]) for key in keys)
    metrics = read_jsonl(folder / "metrics.jsonl")
    return RunResult(label, config["seed"], metrics, dict(evaluations), outcomes, config, folder)


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """Run folders: those named, and the runs in a named folder that is none itself.

    Raises:
        InputError: a folder holds no run, or a run is named twice.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        inside = [path] if _is_run(path) else sorted(p.parent for p in path.glob("**/config.yaml") if _is_run(p.parent))
        if not inside:
            raise InputError(f"{path}: there is no run here (no folder with config.yaml and metrics.jsonl)")
        for folder in inside:
            if folder.resolve() in found:
                raise InputError(f"{folder}: the same run twice (first as {found[folder.resolve()]}); name it once")
            found[folder.resolve()] = folder
    return list(found.values())


def read_runs(paths: Sequence[Path], keys: Sequence[str] | None = None) -> list[RunResult]:
    """The runs of `find_runs`; without `keys`, labels have what differs of method, model and task.

    Raises:
        InputError: as `find_runs` and `read_run`, or two runs have one label and one seed.
    """
    folders = find_runs(paths)
    if keys is None:
        configs = [_flat(read_config(folder)) for folder in folders]
        differing = [key for key in ("model.path", "task.name") if len({str(c.get(key)) for c in configs}) > 1]
        keys = ["method.name", *(key for key in differing if all(key in c for c in configs))]
    runs = [read_run(folder, keys) for folder in folders]
    seen: dict[tuple[str, int], RunResult] = {}
    for run in runs:
        other = seen.setdefault((run.label, run.seed), run)
        if other is not run:
            raise InputError(f"{run.folder} and {other.folder}: {_twice(run, other)}")
    return runs


def _twice(run: RunResult, other: RunResult) -> str:
    differ = [
        key
        for key in sorted(run.config.keys() | other.config.keys())
        if run.config.get(key) != other.config.get(key) and key not in ("run_name", "output_dir", "project")
    ]
    both = f"both are {run.label} with seed {run.seed}"
    if differ:
        return f"{both}, so they are no two seeds; they differ in {', '.join(differ[:4])}: add such a key to --by"
    return f"{both} and the same config, so they are one run twice; name one of them"


def by_label(runs: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """The runs of each label, in the order of their first run."""
    grouped: dict[str, list[RunResult]] = defaultdict(list)
    for run in runs:
        grouped[run.label].append(run)
    return dict(grouped)


def all_sets(runs: Sequence[RunResult], average: bool = True) -> list[str]:
    """The evaluation sets of all runs in order, and the average if any run has one."""
    names = list(dict.fromkeys(name for run in runs for name in run.sets))
    return [*names, "average"] if average and any("average" in run.evaluations for run in runs) else names


def accuracies(runs: Sequence[RunResult], name: str, trained: bool = True) -> dict[int, float]:
    """Seed → accuracy on a set at the last evaluation, or before the first step, for the runs that have it."""
    found = {}
    for run in runs:
        values = [mean for step, mean in run.evaluations.get(name, ()) if (step > 0) == trained]
        if values:
            found[run.seed] = values[-1]
    return found


def _is_run(folder: Path) -> bool:
    """Logs tell a run from the folder of a stand-alone evaluation, which has a config as well."""
    logs = any((folder / name).is_file() for name in ("metrics.jsonl", "evaluations.jsonl"))
    return logs and (folder / "config.yaml").is_file()


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
