"""Kill a run at random moments, resume it each time, and compare it with a run that nothing disturbed.

    python -m tests.run.kills --kills 200

Each trial starts a small run and kills it (SIGKILL) after a random time; then it resumes it, and kills it again, up to
`--chain` times, before it lets the run finish. The run must then equal the undisturbed one: weights, evaluations,
rollouts, and metrics apart from durations.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from rlcsd.cli import main
from rlcsd.storage import read_jsonl

OVERRIDES = [
    "steps=6", "refill_batches=1", "prompts_per_step=4", "prompts_per_update=2", "group_size=4", "task.train_sizes=[3]",
    "task.unseen_sizes=[]", "task.train_per_size=8", "task.eval_per_size=4", "sampling.max_tokens=64",
    "evaluation.sampling.max_tokens=64", "evaluation.samples=1", "evaluation.every=2", "save_every=2", "log_rollouts=1",
    "task.forms=[atom,not,and,or,iff,if]", "engine.threads=1", "trackers=[]", "figures=false",
    "save_in_background=true",
]  # fmt: skip


def command(folder: Path) -> list[str]:
    """`rlcsd train` of the small run, or its resumption if it has a config."""
    if (folder / "config.yaml").is_file():
        return ["train", "--resume", str(folder)]
    return ["train", *OVERRIDES, f"output_dir={folder.parent}", f"run_name={folder.name}"]


def start(folder: Path, errors: Any = subprocess.PIPE) -> subprocess.Popen[bytes]:
    """A new interpreter that begins the run, or resumes it."""
    return subprocess.Popen(
        [sys.executable, "-m", "rlcsd.cli", *command(folder)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=errors,
        start_new_session=True,
    )


def spawned(folder: Path) -> int:
    """The process id of a new interpreter, whose start-up may be hit too."""
    with open(errors_of(folder), "wb") as errors:
        return start(folder, errors).pid


def forked(folder: Path) -> int:
    """A copy of this process, which has imported all there is, so that the kill hits the run itself; its process id."""
    arguments = command(folder)
    process = os.fork()
    if process:
        return process
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(errors_of(folder), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    code = 1
    try:
        code = main(arguments)
    finally:
        sys.stderr.flush()
        os._exit(code)


def errors_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.stderr")


def wait(process: int, seconds: float = float("inf")) -> int | None:
    """The exit code of a process, or None if it still runs after so many seconds."""
    until = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.005)


def finish(folder: Path, begin: Callable[[Path], int] = spawned) -> None:
    """Begin the run or resume it, and wait until it ends well."""
    _check(folder, wait(begin(folder)))


def _check(folder: Path, code: int | None) -> None:
    if code:
        raise AssertionError(f"{folder}: exit code {code}: {errors_of(folder).read_text()[-2000:]}")


def kill(folder: Path, seconds: float, begin: Callable[[Path], int]) -> str:
    """Run or resume for so many seconds, then kill the whole group of processes; the phase it was in, as far as seen."""
    process = begin(folder)
    code = wait(process, seconds)
    if code is not None:
        _check(folder, code)
        return "after the end"
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    partial = [path.name for path in folder.rglob(".*.partial")]
    return "while writing" if partial else "between writes" if (folder / "config.yaml").is_file() else "at start-up"


def differences(one: Path, other: Path) -> list[str]:
    """What two finished runs differ in."""
    found = []
    for name in ("metrics.jsonl", "rollouts.jsonl", "evaluations.jsonl"):
        ours, theirs = ([_timeless(r) for r in read_jsonl(folder / name)] for folder in (one, other))
        if ours != theirs:
            found.append(f"{name} ({len(ours)} and {len(theirs)} records)")
    for name in ("model.safetensors", "state/trained.safetensors", "state/optimizer.safetensors"):
        paths = [folder / "checkpoints" / "step_000006" / name for folder in (one, other)]
        if not paths[0].is_file() and not paths[1].is_file():
            continue
        ours, theirs = (load_file(path) for path in paths)
        if ours.keys() != theirs.keys() or any(not torch.equal(ours[key], theirs[key]) for key in ours):
            found.append(name)
    steps = [sorted(path.name for path in (folder / "checkpoints").iterdir()) for folder in (one, other)]
    if steps[0] != steps[1]:
        found.append(f"checkpoints {steps}")
    return found


def _timeless(record: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in record.items() if not key.startswith(("time/", "perf/"))}


def trials(root: Path, kills: int, chain: int, seed: int, forks: float = 0.0) -> dict[str, object]:
    """Kill and resume until `kills` kills are done; counts of kills, runs and identical runs, and the differences.

    A share of `forks` of the processes are copies of this one, which must have no other threads.
    """

    def begin(folder: Path) -> int:
        return (forked if rng.random() < forks else spawned)(folder)

    rng = random.Random(seed)
    reference = root / "undisturbed"
    begun = time.perf_counter()
    finish(reference, forked if forks else spawned)
    whole = time.perf_counter() - begun
    done, runs, same, wrong = 0, 0, 0, []
    phases: dict[str, int] = {}
    while done < kills:
        folder = root / f"run_{runs}"
        for _ in range(rng.randint(1, min(chain, kills - done))):
            phase = kill(folder, rng.uniform(0.0, 0.9 * whole), begin)
            if phase == "after the end":
                break
            phases[phase] = phases.get(phase, 0) + 1
            done += 1
        try:
            finish(folder, begin)
            found = differences(reference, folder)
        except AssertionError as error:
            found = [str(error)]
        runs, same = runs + 1, same + (not found)
        if found:
            wrong.append({"run": folder.name, "found": found})
        else:
            shutil.rmtree(folder)
            errors_of(folder).unlink()
        print(f"{done} kills, {runs} runs, {same} identical", file=sys.stderr, flush=True)
    return {"kills": done, "runs": runs, "identical": same, "phases": phases, "wrong": wrong}


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--chain", type=int, default=3, help="most kills of one run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("kills"), help="folder for the runs")
    arguments = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)  # a copy of this process has none of its other threads
    importlib.import_module("rlcsd.engine.local")
    arguments.out.mkdir(parents=True)
    print(json.dumps(trials(arguments.out, arguments.kills, arguments.chain, arguments.seed, forks=0.9), indent=2))


if __name__ == "__main__":
    run()
