"""Sweeps: one run for each combination of values, all in one folder, which can be resumed and compared.

Several values of a key are separated by commas (`seed=0,1,2`), or written as `range(0,4)`, as `choice(a,b)`, or as
`glob(rl*)` over the names of a config group. A comma within quotes or brackets separates nothing. Jobs run one after
another in this process; `Sweep.command` gives the command of each, for a scheduler.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import shlex
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..config.load import choices, is_special_path, literal, load, split_override
from ..config.schema import Config
from ..errors import InputError
from ..report.comparison import Comparison, comparison
from ..report.run_results import read_run
from ..storage import append_jsonl, check_new_folder, read_jsonl, write_text
from ..tasks.task import Task
from .folder import resumed_config, unused

_JOBS, _OUTCOMES = "sweep.json", "jobs.jsonl"
_MAX_JOBS = 10_000


@dataclass(frozen=True)
class Job:
    """One run of a sweep. `label` is the name without its seed: jobs of one label are seeds of each other."""

    name: str
    label: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """How a job ended; `reason` is empty for one that finished."""

    name: str
    reason: str = ""


class Sweep:
    """The folder of a sweep: `sweep.json` with its jobs, `jobs.jsonl` with those that ended, and a run folder for each.

    Args:
        task: the task of all runs, if a program gives it.
        progress: whether the progress of each run is shown.

    Raises:
        InputError: the folder is not empty, or, with `resume`, holds no sweep.
    """

    def __init__(
        self,
        folder: Path,
        overrides: Sequence[str] = (),
        resume: bool = False,
        task: Task | None = None,
        progress: bool = True,
    ) -> None:
        self.folder, self.task, self.progress = folder.absolute(), task, progress
        if task is not None and not resume and not any(override.startswith("task=") for override in overrides):
            overrides = ["task=own", *overrides]
        jobs: dict[str, Job] = {}
        if resume:
            path = folder / _JOBS
            if not path.is_file():
                raise InputError(f"--resume {folder}: no such file {path}, so this is no folder of a sweep")
            try:
                records = json.loads(path.read_text(encoding="utf-8"))["jobs"]
                jobs = {job["name"]: Job(job["name"], job["label"], tuple(job["overrides"])) for job in records}
            except (ValueError, KeyError, TypeError):
                raise InputError(f"--resume {folder}: {path} is damaged; it lists the sweep's jobs") from None
        else:
            check_new_folder(folder)
        if overrides or not resume:
            jobs |= {job.name: job for job in jobs_of(overrides, list(jobs.values()))}
        self.jobs = list(jobs.values())

    def outcomes(self) -> dict[str, Outcome]:
        """How each job ended last, of those that did."""
        records = read_jsonl(self.folder / _OUTCOMES)
        return {record["job"]: Outcome(record["job"], record["reason"]) for record in records}

    def left(self) -> list[Job]:
        """The jobs that have not finished."""
        ended = self.outcomes()
        return [job for job in self.jobs if job.name not in ended or ended[job.name].reason]

    def run(self) -> list[Outcome]:
        """Run what is left; returns how every job ended. A job that fails does not stop the others."""
        self.folder.mkdir(parents=True, exist_ok=True)
        jobs = [{"name": job.name, "label": job.label, "overrides": job.overrides} for job in self.jobs]
        write_text(self.folder / _JOBS, json.dumps({"jobs": jobs}, indent=2))
        for job in self.left():
            if self.progress:
                print(f"\n{job.name}", flush=True)
            append_jsonl(self.folder / _OUTCOMES, {"job": job.name, "reason": self._run_job(job)})
        ended = self.outcomes()
        return [ended.get(job.name, Outcome(job.name, "it did not end")) for job in self.jobs]

    def _run_job(self, job: Job) -> str:
        """A new run, or the rest of an interrupted one; returns why it failed, empty if it did not."""
        from .console import ProgressDisplay
        from .run import Run

        folder = self.folder / job.name
        resume = (folder / "config.yaml").is_file()
        try:
            config = resumed_config(folder) if resume else self._config(job)
            with ProgressDisplay("auto" if self.progress else "off") as display:
                Run(config, self.task, folder if resume else None, display.watch).execute(resume=resume)
        except InputError as error:
            return str(error)
        except Exception as error:
            folder.mkdir(exist_ok=True)
            write_text(folder / "error.txt", traceback.format_exc())
            return f"{type(error).__name__}; see {folder}/error.txt"
        return ""

    def compare(self) -> Comparison | None:
        """The finished runs side by side, also as `comparison.md` and `comparison.png`; None if there are none."""
        labels = {job.name: job.label for job in self.jobs}
        finished = [name for name, ended in self.outcomes().items() if name in labels and not ended.reason]
        runs = [read_run(self.folder / name) for name in labels if name in finished]
        if not runs:
            return None
        runs = [replace(run, label=labels[run.folder.name] or run.label) for run in runs]
        compared = Comparison(runs, [comparison(runs)])
        write_text(self.folder / "comparison.md", f"{compared}\n")
        compared.plot(self.folder / "comparison.png")
        return compared

    def check(self, outcomes: Sequence[Outcome]) -> None:
        """Raise InputError if a run failed, with the reason of each."""
        failed = [outcome for outcome in outcomes if outcome.reason]
        if failed:
            reasons = "; ".join(f"{outcome.name}: {outcome.reason}" for outcome in failed)
            raise InputError(
                f"{len(failed)} of {len(outcomes)} runs failed ({reasons}); `rlcsd sweep --resume {self.folder}` tries "
                "them again"
            )

    def _config(self, job: Job) -> Config:
        return load(job.overrides).model_copy(update={"output_dir": str(self.folder), "run_name": job.name})

    def command(self, job: Job) -> str:
        """The shell command that makes a job's run in this folder, from anywhere."""
        placed = (f"output_dir={literal(str(self.folder))}", f"run_name={literal(job.name)}")
        return shlex.join(["rlcsd", "train", *job.overrides, *placed])


def sweep(
    overrides: Sequence[str] | Mapping[str, Any] = (),
    task: Task | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    progress: bool = True,
) -> Comparison:
    """One run for each combination of values, one after the other; returns their comparison.

    >>> import rlcsd
    >>> found = rlcsd.sweep({"seed": [0, 1], "steps": 1, **settings}, out="sweeps/seeds", progress=False)
    >>> [run.seed for run in found.runs]
    [0, 1]

    Args:
        overrides: `["method=grpo,rlcsd", "seed=0,1"]`, or a mapping in which a list, a tuple or a range holds several
            values: `{"method": ["grpo", "rlcsd"], "seed": range(3)}`. A value that is a list itself stands in a list of
            values: `{"guard.entropy": [[0, 1]]}`.
        task: the task of all runs, instead of one of the config.
        out: new folder for all of them; by default one of `output_dir`.
        resume: the folder of a sweep, of which what is left is run, and what `overrides` add to it.
        progress: whether each run shows its progress.

    Raises:
        InputError: a value is not right, or a run failed; the others are done then, and `resume` tries it again.
    """
    given = _written(overrides) if isinstance(overrides, Mapping) else list(overrides)
    if resume is not None and out is not None:
        raise InputError(f"out={out}: a resumed sweep stays in its folder {resume}; leave one of the two out")
    if resume is not None:
        chosen = Sweep(Path(resume), given, True, task, progress)
    else:
        chosen = Sweep(new_folder(given) if out is None else Path(out), given, False, task, progress)
    outcomes = chosen.run()
    compared = chosen.compare()
    chosen.check(outcomes)
    assert compared is not None
    return compared


def _written(values: Mapping[str, Any]) -> list[str]:
    """The values of a mapping as overrides."""
    several = {
        key: list(value) if isinstance(value, list | tuple | range) and value else [value]
        for key, value in values.items()
    }
    return [f"{key}={','.join(map(literal, choices))}" for key, choices in several.items()]


def new_folder(overrides: Sequence[str]) -> Path:
    """A folder for a sweep in the output_dir that the overrides choose."""
    base = next((o.partition("=")[2] for o in reversed(overrides) if o.startswith("output_dir=")), "runs")
    return unused(Path(base.strip("'\"")) / f"sweep-{time.strftime('%Y%m%d-%H%M%S')}")


def jobs_of(overrides: Sequence[str], kept: Sequence[Job] = ()) -> list[Job]:
    """One job for each combination of the values, each with a checked config.

    `kept` are the jobs of a resumed sweep: keys that are not given again keep all the values that they have in these
    jobs, and a key that had several values may have one.

    Raises:
        InputError: no key has several values, a value cannot be read, a job's config is not right, or a key with
            one value has another one, or none, in the kept jobs.
    """
    before = _values_by_key([job.overrides for job in kept])
    given = dict(map(parse_override, overrides))
    values = before | given
    if given.get("run_name", ["null"]) != ["null"]:
        raise InputError(f"run_name={given['run_name'][0]}: a sweep names its runs after their values; leave it out")
    swept = {key for key in values if len(values[key]) > 1 or len(before.get(key, ())) > 1}
    if not swept:
        raise InputError("sweep: no key has several values; for example method=grpo,rlcsd seed=0,1,2")
    for key in values:
        if kept and key not in swept and before.get(key) != values[key]:
            raise InputError(f"{key}={values[key][0]}: the sweep's other runs are without that; start another sweep")
    if (count := math.prod(map(len, values.values()))) > _MAX_JOBS:
        raise InputError(f"sweep: {count} combinations of values; a sweep takes at most {_MAX_JOBS}")
    jobs = dict[str, Job]()
    for combination in itertools.product(*([f"{key}={value}" for value in values[key]] for key in values)):
        job = _job(combination, swept)
        if jobs.get(job.name, job).overrides != job.overrides:  # two values that read alike as the name of a folder
            unseeded = [override for override in combination if not override.startswith("seed=")]
            job = Job(f"{job.name}-{_hash(combination)}", f"{job.label}-{_hash(unseeded)}", job.overrides)
        if load(combination).rehearsal:
            raise InputError("rehearsal=true: `rlcsd train` does it, for one run")
        jobs[job.name] = job
    return list(jobs.values())


def _hash(overrides: Sequence[str]) -> str:
    return hashlib.sha256(" ".join(overrides).encode()).hexdigest()[:8]


def parse_override(override: str) -> tuple[str, list[str]]:
    """The key of an override and its values, each as it is written in a run's own override.

    Raises:
        InputError: a quote or bracket is not closed, a value is empty, or a function is unknown.
    """
    if re.match(r"\+*hydra[/.]", override):
        raise InputError(
            f"{override}: the folder of a sweep is --out FOLDER, and its jobs run one after another; `--dry-run` "
            "prints the command of each, to run them elsewhere"
        )
    key, text = split_override(override)
    function = re.fullmatch(r"(range|choice|glob)\((.*)\)", text)
    if function is None:
        if name := re.match(r"(interval|shuffle|sort|tag)\(", text):
            raise InputError(
                f"{override}: {name[1]}() is not supported; several values read {key}=a,b or "
                f"{key}=range(START,STOP), {key}=choice(a,b), {key}=glob(PATTERN)"
            )
        values = _paths_joined(_split_at_commas(override, text))
    elif function[1] == "choice":
        values = _paths_joined(_split_at_commas(override, function[2]))
    elif function[1] == "range":
        values = _range(override, function[2])
    else:
        values = _glob(override, key, function[2])
    if len(values) > 1 and "" in values:
        raise InputError(f"{override}: one of its values is empty")
    return key, list(dict.fromkeys(map(_plain_number, values)))


def _split_at_commas(override: str, text: str) -> list[str]:
    """The parts between commas that are outside quotes and brackets; a backslash protects the character after it."""
    parts, closers, quote, escaped = [""], [], "", False
    for character in text:
        if escaped or character == "\\":
            escaped = not escaped
        elif quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "([{":
            closers.append(")]}"["([{".index(character)])
        elif closers and character == closers[-1]:
            closers.pop()
        elif character == "," and not closers:
            parts.append("")
            continue
        parts[-1] += character
    if quote or closers:
        raise InputError(f"{override}: the value {text!r} has no closing {quote or closers[-1]}")
    return [part.strip() for part in parts]


def _paths_joined(parts: list[str]) -> list[str]:
    """The parts, of which those that together are a path that exists are one: `sweep/method=grpo,seed=0`."""
    joined: list[str] = []
    while parts:
        ends = [end for end in range(len(parts), 1, -1) if is_special_path(",".join(parts[:end]))]
        count = ends[0] if ends else 1
        joined.append(",".join(parts[:count]))
        parts = parts[count:]
    return joined


def _range(override: str, text: str) -> list[str]:
    """`range(stop)`, `range(start,stop)` or `range(start,stop,step)` with whole numbers."""
    try:
        found = range(*(int(part) for part in text.split(",")))
    except (TypeError, ValueError):
        raise InputError(f"{override}: reads range(START,STOP) or range(START,STOP,STEP), in whole numbers") from None
    if not 0 < len(found) <= _MAX_JOBS:
        raise InputError(f"{override}: has {len(found)} values; a sweep takes from 1 to {_MAX_JOBS}")
    return list(map(str, found))


def _glob(override: str, key: str, pattern: str) -> list[str]:
    """The names of a config group that match `pattern`, such as `rl*`."""
    names = [name for name in choices().get(key, []) if name != "plugin" and fnmatchcase(name, pattern.strip("'\""))]
    if not names:
        raise InputError(f"{override}: no {key} of that pattern; glob() is for {', '.join(choices())}")
    return names


def _plain_number(text: str) -> str:
    """`1e-4` as `0.0001`: one spelling of a number, so that one value has one run."""
    return str(float(text)) if re.fullmatch(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?", text) else text


def _values_by_key(combinations: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """All values of each key, in the order in which they were given."""
    found: dict[str, dict[str, None]] = {}
    for override in itertools.chain.from_iterable(combinations):
        key, _, value = override.partition("=")
        found.setdefault(key, {})[value] = None
    return {key: list(values) for key, values in found.items()}


def _job(combination: Sequence[str], swept: set[str]) -> Job:
    chosen = [override for override in combination if override.partition("=")[0] in swept]
    label = _folder_name([override for override in chosen if not override.startswith("seed=")])
    return Job(_folder_name(chosen), label, tuple(combination))


def _folder_name(overrides: Sequence[str]) -> str:
    """Overrides as the name of a folder."""
    name = re.sub(r"[^\w.=,+-]+", "-", re.sub("['\"]", "", ",".join(overrides)), flags=re.ASCII)
    if len(name) <= 120:
        return name
    return f"{name[:100]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
