"""Sweeps: one run for each combination of values, all in one folder, which can be resumed and compared.

The grammar is Hydra's own (`seed=0,1,2`, `seed=range(0,3)`, `method=glob(rl*)`), and so are the launchers
(`hydra/launcher=joblib`, `submitit_local`, `submitit_slurm`).
"""

from __future__ import annotations

import hashlib
import json
import re
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf.errors import OmegaConfBaseException

from ..config.load import GROUPS, load
from ..config.schema import Config
from ..errors import InputError
from ..storage import append_jsonl, check_new_folder, read_jsonl, write_text
from .checkpoint import resumed_config

_JOBS, _DONE = "sweep.json", "jobs.jsonl"
_LAUNCH = GROUPS.parent / "sweep"


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


def split_hydra(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides of the runs, and those of Hydra itself (`hydra/launcher=…`, `hydra.launcher.n_jobs=…`).

    Raises InputError for a folder of Hydra's, of which this command has its own.
    """
    for override in overrides:
        if re.match(r"\+*hydra\.(sweep|run)\.", override):
            raise InputError(
                f"{override}: the folder of a sweep is --out FOLDER, and its runs are named by their values"
            )
    own = [override for override in overrides if not re.match(r"\+*hydra[/.]", override)]
    return own, [override for override in overrides if re.match(r"\+*hydra[/.]", override)]


def jobs_of(overrides: Sequence[str], kept: Sequence[Job] = ()) -> list[Job]:
    """One job for each combination of the values.

    `kept` are the jobs of a sweep that goes on: keys that are not given again stay as they were, with all their values,
    and a key that had several values may have one.

    Raises:
        InputError: no key has several values, a value cannot be read, a job's config is not right, or a key with
            one value has another one, or none, in the kept jobs.
    """
    parser = OverridesParser.create(ConfigLoaderImpl(create_config_search_path(str(GROUPS))))
    before = _values([job.overrides for job in kept])
    given = {_key(override): override for override in overrides}
    filled = [given.pop(key, f"{key}={','.join(values)}") for key, values in before.items()]
    try:
        parsed = parser.parse_overrides([_quoted(override) for override in (*filled, *given.values())])
        combinations = BasicSweeper.split_arguments(parsed, None)[0]
    except HydraException as error:
        raise InputError(f"{' '.join(overrides)}: {str(error).splitlines()[0]}") from None
    swept = {one.get_key_element() for one in parsed if one.is_sweep_override()}
    swept |= {key for key, values in before.items() if len(values) > 1}
    if not swept:
        raise InputError("sweep: no key has several values; for example method=grpo,rlcsd seed=0,1,2")
    for key, values in _values(combinations).items():
        if kept and key not in swept and before.get(key) != values:
            raise InputError(f"{key}={values[0]}: the sweep's other runs are without that; start another sweep")
    jobs = dict[str, Job]()
    for combination in combinations:
        job = _job(combination, swept)
        if jobs.get(job.name, job).overrides != job.overrides:  # values that are written alike as the name of a folder
            tail = hashlib.sha256(" ".join(combination).encode()).hexdigest()[:8]
            job = Job(f"{job.name}-{tail}", f"{job.label}-{tail}", job.overrides)
        jobs[job.name] = job
        load(combination)
    return list(jobs.values())


def _job(combination: Sequence[str], swept: set[str]) -> Job:
    several = [override for override in combination if _key(override) in swept]
    label = _name([override for override in several if not override.startswith("seed=")])
    return Job(_name(several), label, tuple(combination))


def _key(override: str) -> str:
    return override.partition("=")[0]


def _values(combinations: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """All values of each key, in the order in which they were given."""
    found: dict[str, dict[str, None]] = {}
    for override in (one for combination in combinations for one in combination):
        key, _, value = override.partition("=")
        found.setdefault(key, {})[value] = None
    return {key: list(values) for key, values in found.items()}


def _quoted(override: str) -> str:
    """Bands such as 6_8, which Hydra's grammar would read as numbers, in quotes."""
    key, equals, value = override.partition("=")
    return f"{key}{equals}" + (re.sub(r"(?<![\w'\".])[\d.]+_[\d.]+(?![\w'\"])", r"'\g<0>'", value) if equals else "")


def _name(overrides: Sequence[str]) -> str:
    """Overrides as the name of a folder."""
    name = re.sub(r"[^\w.=,+-]+", "-", ",".join(one.replace("'", "") for one in overrides), flags=re.ASCII)
    if len(name) <= 120:
        return name
    return f"{name[:100]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


class Sweep:
    """The folder of a sweep: `sweep.json` with its jobs, `jobs.jsonl` with those that ended, and a run folder for each.

    Raises:
        InputError: the folder is not empty, or, with `resume`, holds no sweep.
    """

    def __init__(self, folder: Path, overrides: Sequence[str] = (), resume: bool = False) -> None:
        self.folder = folder.absolute()
        own, self.hydra = split_hydra(overrides)
        kept: dict[str, Job] = {}
        if resume:
            path = folder / _JOBS
            if not path.is_file():
                raise InputError(f"--resume {folder}: no such file {path}, so this is no folder of a sweep")
            values = json.loads(path.read_text(encoding="utf-8"))
            kept = {job["name"]: Job(job["name"], job["label"], tuple(job["overrides"])) for job in values["jobs"]}
            self.hydra = self.hydra or values["hydra"]
        else:
            check_new_folder(folder)
        if own or not resume:
            kept |= {job.name: job for job in jobs_of(own, list(kept.values()))}
        self.jobs = list(kept.values())
        self.launcher = _Launcher(self.hydra)

    @property
    def elsewhere(self) -> bool:
        """Do jobs write what they say to files of their launcher?"""
        return any(override.startswith("hydra/launcher=submitit") for override in self.hydra)

    def outcomes(self) -> dict[str, Outcome]:
        """How each job ended last, of those that did."""
        return {record["job"]: Outcome(record["job"], record["reason"]) for record in read_jsonl(self.folder / _DONE)}

    def left(self) -> list[Job]:
        """The jobs that have not finished."""
        ended = self.outcomes()
        return [job for job in self.jobs if job.name not in ended or ended[job.name].reason]

    def run(self) -> list[Outcome]:
        """Run what is left; returns how every job ended. A job that fails does not stop the others."""
        self.folder.mkdir(parents=True, exist_ok=True)
        jobs = [{"name": job.name, "label": job.label, "overrides": job.overrides} for job in self.jobs]
        write_text(self.folder / _JOBS, json.dumps({"jobs": jobs, "hydra": self.hydra}, indent=2))
        left = self.left()
        if left:
            self.launcher.launch(self.folder, [job.name for job in left])
        ended = self.outcomes()
        return [ended.get(job.name, Outcome(job.name, "it did not end")) for job in self.jobs]


class _Launcher:
    """Hydra's launcher as `hydra/launcher=…` chooses it. Raises InputError for one that is not there."""

    def __init__(self, overrides: Sequence[str]) -> None:
        self.overrides = list(overrides)
        wanted = next((o.partition("=")[2] for o in overrides if o.startswith("hydra/launcher=")), "basic")
        try:
            self._compose(Path("."))
        except (HydraException, OmegaConfBaseException) as error:
            hint = (
                ""
                if wanted == "basic"
                else "; pip install 'rlcsd[sweep]' brings joblib, submitit_local, submitit_slurm"
            )
            raise InputError(f"{' '.join(overrides)}: {str(error).strip().splitlines()[0]}{hint}") from None

    def _compose(self, folder: Path) -> tuple[Hydra, Any]:
        GlobalHydra.instance().clear()
        hydra = Hydra.create_main_hydra2("rlcsd", create_config_search_path(str(_LAUNCH)))
        given = [*self.overrides, f"folder='{folder}'", "job=none"]
        return hydra, hydra.compose_config("sweep", given, RunMode.MULTIRUN, with_log_configuration=False)

    def launch(self, folder: Path, names: Sequence[str]) -> None:
        """Run the jobs of these names, and wait for all of them."""
        from hydra._internal.callbacks import Callbacks

        hydra, config = self._compose(folder)
        context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
        launcher = Plugins.instance().instantiate_launcher(config=config, hydra_context=context, task_function=run_job)
        for result in launcher.launch([[f"job='{name}'", f"folder='{folder}'"] for name in names], 0):
            _ = result.return_value  # raises what the job raised, if it could not even record it
        GlobalHydra.instance().clear()


def run_job(config: Any) -> None:
    """One job, in whatever process the launcher runs it: a new run, or the rest of one that was interrupted."""
    from .console import ProgressDisplay
    from .run import Run

    folder, name = Path(str(config.folder)), str(config.job)
    values = json.loads((folder / _JOBS).read_text(encoding="utf-8"))
    overrides = next(job["overrides"] for job in values["jobs"] if job["name"] == name)
    parallel = any(one.startswith("hydra/launcher=") for one in values["hydra"])
    place = folder / name
    try:
        if not parallel:
            print(f"\n{name}", flush=True)
        resume = (place / "config.yaml").is_file()
        chosen = resumed_config(place) if resume else _placed(load(overrides), folder, name)
        with ProgressDisplay("auto", prefix=f"{name}  " if parallel else "") as progress:
            Run(chosen, folder=place if resume else None, watch=progress.watch).execute(resume=resume)
    except InputError as error:
        append_jsonl(folder / _DONE, {"job": name, "reason": str(error)})
    except Exception as error:
        place.mkdir(exist_ok=True)
        write_text(place / "error.txt", traceback.format_exc())
        append_jsonl(folder / _DONE, {"job": name, "reason": f"{type(error).__name__}; see {place}/error.txt"})
    else:
        append_jsonl(folder / _DONE, {"job": name, "reason": ""})


def _placed(config: Config, folder: Path, name: str) -> Config:
    return config.model_copy(update={"output_dir": str(folder), "run_name": name})
