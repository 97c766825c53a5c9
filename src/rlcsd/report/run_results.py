"""Results of runs, read from their folders, and which of them may be averaged.

Tables and figures average runs that share a label. `cells` forms these groups and refuses one whose runs differ in
anything but the seed, because its mean would be a number of no experiment.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ..config.names import current_names
from ..config.schema import default_values, different_keys
from ..errors import InputError
from ..evaluation import no_longer_better, reported_average, summaries_of
from ..storage import read_jsonl

Outcomes = Mapping[str, Mapping[str, float]]  # set → problem → share of correct responses
Key = TypeVar("Key", bound=Hashable)

# Keys that two seeds of one experiment may differ in: names, logs, checkpoints, and where the arithmetic is done.
_NO_DIFFERENCE = {
    "seed", "run_name", "output_dir", "project", "trackers", "push_to_hub", "figures", "save_every", "keep_last",
    "keep_best", "save_in_background", "export_dtype", "log_rollouts", "show_completion_every", "evaluation.every",
    "evaluation.before", "evaluation.batch",
    *(f"engine.{key}" for key in (
        "device", "threads", "micro_batch_tokens", "score_tokens", "head_chunk", "sample_rows", "sample_gib",
        "cuda_graph", "self_check", "vllm_memory", "vllm_sleep", "nodes", "gpus_per_node", "ray_address",
        "share_prefixes", "sequence_parallel", "offload", "tensor_parallel", "rollout_memory", "rollout_rows",
        "rollout_eager", "rollout_adapters", "timeout", "peak_tflops", "profile_steps",
    )),
}  # fmt: skip
_NOT_MEASURED = _NO_DIFFERENCE | {"evaluation.patience", "evaluation.min_gain"}  # when, but not how it is evaluated
_EVALUATED = ("evaluation.", "model.thinking_eval")
REHEARSAL = "-rehearsal-"  # in the name of a rehearsal's folder
_LONGEST_VALUE = 60  # characters of a value in a label


@dataclass(frozen=True)
class EvaluatedStep:
    """Held-out accuracy at one step: by evaluation set, as the reported average, and of each problem by set.

    `outcomes` leaves out sets of which the log does not have every problem.
    """

    step: int
    accuracy: Mapping[str, float]
    average: float | None
    outcomes: Outcomes

    @property
    def sets(self) -> list[str]:
        """The evaluation sets, of a set with several kinds of problem its kinds instead; without the average."""
        names = [name for name in self.accuracy if name != "average"]
        return [name for name in names if not any(other.startswith(f"{name}: ") for other in names)]


@dataclass(frozen=True)
class RunResult:
    """What one run folder holds. `before` is the evaluation before the first step, `after` the last one after it, and
    `config` is flat: `method.name`, `seed` …, with the defaults of keys that its version lacked. `stopped` says that
    its evaluations ended it (`evaluation.patience`). `repeats` is a run beside it with the same config and seed."""

    label: str
    seed: int
    folder: Path
    config: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    before: EvaluatedStep | None
    after: EvaluatedStep | None
    stopped: bool = False
    repeats: Path | None = None

    @property
    def updates(self) -> int | None:
        """Optimizer steps that changed weights; None if the log does not have them."""
        by_step = updates_by_step(self.metrics)
        return sum(by_step.values()) if by_step else None

    @property
    def stops_early(self) -> bool:
        """Whether it may end before its last step."""
        return bool(self.config.get("evaluation.patience"))

    @property
    def progress(self) -> tuple[bool, int, int]:
        """How far it came: whether its evaluations ended it, its last evaluated step, its last step."""
        step = 0 if self.after is None else self.after.step
        return self.stopped, step, self.metrics[-1]["step"] if self.metrics else 0

    @property
    def method(self) -> str:
        return method_label(str(self.config["method.name"]), self.config.get("method.objective"))

    def evaluated(self, trained: bool) -> EvaluatedStep | None:
        return self.after if trained else self.before


# ------------------------------------------------------------------ reading


def read_config(folder: Path) -> dict[str, Any]:
    """The config of the run in `folder`, its keys under their present names.

    Raises:
        InputError: the folder holds no run, or its config cannot be read.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise InputError(f"{folder}: there is no run here (no config.yaml)")
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(config["method"]["name"], str) or not isinstance(config["seed"], int):
            raise TypeError
    except (yaml.YAMLError, ValueError, TypeError, KeyError):
        raise InputError(f"{path}: this is not the config of a run; give the folder of `rlcsd train`") from None
    return current_names(config)


def method_label(name: str, objective: str | None) -> str:
    """A method in names and tables of runs: `rlcsd`, or with another objective than its own `rlcsd-dapo`."""
    return name if objective in (None, "grpo", name) else f"{name}-{objective}"


def label_of_method(config: Mapping[str, Any]) -> str:
    """The `method_label` of a config as `read_config` gives it, without the path of a user's file."""
    method = config["method"]
    return method_label(str(method["name"]), method.get("objective")).rpartition(":")[2]


def read_run(folder: Path, keys: Sequence[str] = ("method.name",)) -> RunResult:
    """A finished or running run; its label is the values of `keys` in its config.

    Raises:
        InputError: the folder holds no run, or `keys` has a name that its config does not have.
    """
    given = read_config(folder)
    config = _flat(default_values(given)) | _flat(given)
    for key in keys:
        if key not in config:
            raise InputError(f"--by {key}: {folder} has no such key in its config; one is for example method.name")
    records = read_jsonl(folder / "evaluations.jsonl")
    steps = [_evaluated_step(record) for record in records]
    patience, min_gain = config["evaluation.patience"], config["evaluation.min_gain"]
    return RunResult(
        label=" ".join(_label_part(config, key) for key in keys),
        seed=config["seed"],
        folder=folder,
        config=config,
        metrics=read_jsonl(folder / "metrics.jsonl"),
        before=next((one for one in reversed(steps) if one.step == 0), None),
        after=next((one for one in reversed(steps) if one.step > 0), None),
        stopped=no_longer_better(map(summaries_of, records), patience, min_gain),
    )


def _label_part(config: Mapping[str, Any], key: str) -> str:
    if key == "method.name":
        return _one_line(method_label(str(config[key]), config.get("method.objective")))
    return _one_line(config[key])


def _one_line(value: Any) -> str:
    """A value in a label: one line, and a long or broken one shortened, with a hash that tells it from others."""
    text = str(value)
    line = " ".join(text.split())
    if line == text and len(line) <= _LONGEST_VALUE:
        return line
    return f"{line[:_LONGEST_VALUE]}… ({hashlib.sha256(text.encode()).hexdigest()[:6]})"


def _evaluated_step(record: dict[str, Any]) -> EvaluatedStep:
    summaries = summaries_of(record)
    outcomes = {}
    for summary in summaries:
        shares = record.get("outcomes", {}).get(summary.name, {})
        if len(shares) == summary.problems:  # older logs have lost the repetitions of a problem
            # Exact shares of the samples: older logs have them to six digits, which sets equal differences apart.
            outcomes[summary.name] = {p: round(v * summary.samples) / summary.samples for p, v in shares.items()}
    average = reported_average(summaries) if summaries else None
    return EvaluatedStep(record["step"], {summary.name: summary.mean for summary in summaries}, average, outcomes)


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """Run folders: those named, and the runs in a named folder that is none itself, but for rehearsals.

    Raises:
        InputError: a folder holds no run, or a run is named twice.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        below = (one.parent for one in path.glob("**/config.yaml"))
        inside = [path] if _is_run(path) else sorted(p for p in below if _is_run(p) and REHEARSAL not in p.name)
        if not inside:
            raise InputError(
                f"{path}: there is no run here (no folder with config.yaml and metrics.jsonl that is no rehearsal)"
            )
        for folder in inside:
            if folder.resolve() in found:
                raise InputError(f"{folder}: the same run twice (first as {found[folder.resolve()]}); name it once")
            found[folder.resolve()] = folder
    return list(found.values())


def read_runs(paths: Sequence[Path], keys: Sequence[str] | None = None) -> list[RunResult]:
    """The runs of `find_runs`; without `keys`, labels have the method, and what else differs but the seed.

    Raises:
        InputError: as `find_runs` and `read_run`.
    """
    folders = find_runs(paths)
    if keys is not None:
        return [read_run(folder, keys) for folder in folders]
    configs = [_flat(read_config(folder)) for folder in folders]
    differing = [key for key in ("model.path", "task.name") if len({str(c.get(key)) for c in configs}) > 1]
    keys = ["method.name", *(key for key in differing if all(key in c for c in configs))]
    runs = [read_run(folder, keys) for folder in folders]
    found = []
    for run in runs:
        differ = [key for other in runs if other.label == run.label for key in _differences(run, other)]
        more = [f"{key}={_one_line(run.config[key])}" for key in sorted(set(differ)) if key in run.config]
        found.append(replace(run, label=" ".join([run.label, *more])))
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


# ------------------------------------------------------------------ groups


def cells(runs: Sequence[RunResult], key: Callable[[RunResult], Key], remedy: str) -> dict[Key, list[RunResult]]:
    """The runs by `key`, in the order of their first run. `remedy` is what a user can do about a group that is refused.

    Raises:
        InputError: two runs of a group differ in more than the seed, or have the same seed.
    """
    grouped: dict[Key, list[RunResult]] = defaultdict(list)
    for run in runs:
        grouped[key(run)].append(run)
    for members in grouped.values():
        by_seed: dict[int, RunResult] = {}
        for run in members:
            _check_pair(by_seed.setdefault(run.seed, run), run, remedy)
            _check_pair(members[0], run, remedy)
    return dict(grouped)


def by_label(runs: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """The runs of each label, in the order of their first run.

    Of runs with one config and one seed, the one that came furthest has the label; another is no further seed and gets
    a label of its own, `grpo #2`.

    Raises:
        InputError: two runs of a label differ in more than the seed.
    """
    first: dict[str, RunResult] = {}
    by_seed: dict[tuple[str, int], list[RunResult]] = defaultdict(list)
    for run in runs:
        _check_same_experiment(first.setdefault(run.label, run), run, _REMEDY)
        by_seed[run.label, run.seed].append(run)
    numbered = []
    for same in by_seed.values():
        furthest, *others = sorted(same, key=lambda run: run.progress, reverse=True)
        numbered.append(furthest)
        for number, run in enumerate(others, start=2):
            numbered.append(replace(run, label=f"{run.label} #{number}", repeats=furthest.folder))
    return cells(numbered, lambda run: run.label, _REMEDY)


_REMEDY = "add such a key to --by"


def _differences(first: RunResult, run: RunResult) -> list[str]:
    """The keys in which two runs are not seeds of one experiment."""
    return [key for key in different_keys(first.config, run.config) if key not in _NO_DIFFERENCE]


def _check_same_experiment(first: RunResult, run: RunResult, remedy: str) -> None:
    if differ := _differences(first, run):
        raise InputError(
            f"{run.folder} and {first.folder}: both are {run.label} but no two seeds of one experiment; they differ in "
            f"{', '.join(differ[:4])}: {remedy}"
        )


def _check_pair(first: RunResult, run: RunResult, remedy: str) -> None:
    if run is first:
        return
    _check_same_experiment(first, run, remedy)
    both = f"{run.folder} and {first.folder}: both are {run.label}"
    if run.seed == first.seed:
        raise InputError(
            f"{both} with seed {run.seed} and the same config, so they are one run twice; name one of them"
        )


def different_start(runs: Sequence[RunResult]) -> str | None:
    """What keeps the evaluations before training of these runs from measuring the same: a config key, or a set.

    None if they do: one model, evaluated in one way on the same problems. Where a log does not have the problems, the
    configs of the tasks must be equal.
    """
    for run in runs[1:]:
        if key := _first_difference(runs[0], run, ("model.", "evaluation.")):
            return key
        ours, theirs = (one.before.outcomes if one.before is not None else {} for one in (run, runs[0]))
        if not (ours and theirs):
            if key := _first_difference(runs[0], run, ("task.",)):
                return key
            continue
        for name in ours.keys() | theirs.keys():
            if ours.get(name, {}).keys() != theirs.get(name, {}).keys():
                return f"the problems of {name}"
    return None


def _first_difference(first: RunResult, run: RunResult, sections: tuple[str, ...]) -> str | None:
    differ = different_keys(first.config, run.config)
    return next((key for key in differ if key.startswith(sections) and key not in _NOT_MEASURED), None)


def all_sets(runs: Sequence[RunResult], average: bool = True) -> list[str]:
    """The evaluation sets of all runs in order, and the average if any run has one."""
    points = [point for run in runs for point in (run.before, run.after) if point is not None]
    names = list(dict.fromkeys(name for point in points for name in point.sets))
    return [*names, "average"] if average and any("average" in point.accuracy for point in points) else names


def accuracies(runs: Sequence[RunResult], name: str, trained: bool = True) -> dict[int, float]:
    """Seed → accuracy on a set after training (of the runs of a group that `level` keeps), or before it.

    Runs with one seed, which share the model before training, count as their mean.
    """
    found: dict[int, list[float]] = defaultdict(list)
    for run in level(runs) if trained else runs:
        point = run.evaluated(trained)
        if point is not None and name in point.accuracy:
            found[run.seed].append(point.accuracy[name])
    return {seed: sum(values) / len(values) for seed, values in found.items()}


def level(members: Sequence[RunResult]) -> list[RunResult]:
    """The runs of a group whose evaluations after training may be averaged: those at its latest step.

    Runs with `evaluation.patience` end at steps of their own: of them those that reached their last step or that their
    evaluations ended.
    """
    trained = [(run, run.after.step) for run in members if run.after is not None]
    last = max((step for _, step in trained), default=0)
    ended = [run for run, step in trained if run.stops_early and (run.stopped or step == (run.config["steps"] or last))]
    return ended or [run for run, step in trained if step == last]


def progress_notes(grouped: Mapping[Any, Sequence[RunResult]]) -> list[str]:
    """Sentences about runs that are no result yet, and about groups that were not trained equally long."""
    waiting: list[str] = []
    behind: list[str] = []
    broken: list[str] = []
    unfinished: list[str] = []
    steps: list[tuple[str, str]] = []  # label, steps
    for members in grouped.values():
        kept = level(members)
        ends = sorted({run.after.step for run in kept if run.after is not None})
        if ends:
            steps.append((kept[0].label, f"{ends[0]}" if len(ends) == 1 else f"{ends[0]} to {ends[-1]}"))
        for run in members:
            planned = run.config["steps"]
            if run.after is None:
                waiting.append(_name(run))
            elif run not in kept and run.stops_early:
                broken.append(f"{_name(run)} (step {run.after.step})")
            elif run not in kept:
                behind.append(f"{_name(run)} (step {run.after.step}, the others {ends[-1]})")
            elif isinstance(planned, int) and run.after.step < planned and not run.stopped:
                unfinished.append(f"{_name(run)} ({run.after.step} of {planned})")
    notes = []
    every = [run for members in grouped.values() for run in members]
    if idle := [f"{_name(run)} ({run.folder.name})" for run in every if run.updates == 0]:
        notes.append(f"Learned nothing, because no step changed a weight: {'; '.join(idle)}. See their report.md.")
    for run in every:
        if run.repeats is not None:
            notes.append(f"{_name(run)}: {run.folder.name} has the config and the seed of {run.repeats.name}.")
    if waiting:
        notes.append(f"Not evaluated after training: {'; '.join(waiting)}.")
    if behind:
        notes.append(f"Behind the runs beside them, so left out after training: {'; '.join(behind)}.")
    if broken:
        notes.append(
            "Neither at their last step nor ended by evaluation.patience, so left out after training: "
            f"{'; '.join(broken)}."
        )
    if unfinished:
        notes.append(f"Evaluated before the last step: {'; '.join(unfinished)}.")
    if len({step for _, step in steps}) > 1 or any(" to " in step for _, step in steps):
        listed = "; ".join(f"{label} {step}" for label, step in dict.fromkeys(steps))
        notes.append(f"Evaluated after different numbers of steps: {listed}.")
    return notes


def evaluation_notes(grouped: Mapping[Any, Sequence[RunResult]]) -> list[str]:
    """Sentences about groups whose evaluations do not measure the same: other sets, other problems, other settings."""
    found = [kept for members in grouped.values() if (kept := level(members))]
    notes = []
    by_sets: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for kept in found:
        by_sets[tuple(sorted(all_sets(kept, average=False)))].append(kept[0].label)
    if len(by_sets) > 1:
        listed = "; ".join(f"{', '.join(labels)} on {', '.join(names)}" for names, labels in by_sets.items())
        notes.append(f"Evaluated on different sets, so averages over them do not measure the same: {listed}.")
    for name in dict.fromkeys(name for names in by_sets for name in names):
        known = [(kept[0].label, problems) for kept in found if (problems := _problems(kept, name))]
        notes += [
            f"The problems of {name} are not the same for {label} as for {known[0][0]}."
            for label, problems in known
            if problems != known[0][1]
        ]
    configs = [kept[0].config for kept in found]
    for key in sorted({key for config in configs for key in config if key.startswith(_EVALUATED)} - _NOT_MEASURED):
        values = {kept[0].label: _one_line(kept[0].config.get(key)) for kept in found}
        if len(set(values.values())) > 1:
            listed = "; ".join(f"{label} {value}" for label, value in values.items())
            notes.append(f"Evaluated with different {key}: {listed}.")
    return notes


def _problems(runs: Sequence[RunResult], name: str) -> set[str]:
    return {problem for run in runs if run.after is not None for problem in run.after.outcomes.get(name, ())}


def updates_by_step(metrics: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """Step → optimizer steps that changed weights, for the steps whose log has them."""
    return {
        record["step"]: round(
            record["update/count"] - (record.get("update/skipped") or 0) - (record.get("update/empty") or 0)
        )
        for record in metrics
        if record.get("update/count") is not None
    }


def _name(run: RunResult) -> str:
    return f"{run.label}, seed {run.seed}"


def curve(metrics: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric, where it was logged."""
    points = [(record["step"], record[name]) for record in metrics if record.get(name) is not None]
    return [step for step, _ in points], [value for _, value in points]
