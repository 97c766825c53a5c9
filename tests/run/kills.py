"""Kill a run at random moments, resume it each time, and compare it with a run that nothing disturbed.

    python -m tests.run.kills --kills 200

Each trial starts a small run and kills it (SIGKILL) after a random time; then it resumes it, and kills it again, up to
`--chain` times, before it lets the run finish. The run must then equal the undisturbed one: weights, evaluations,
rollouts, and metrics apart from durations.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from rlcsd.folders import read_jsonl

OVERRIDES = [
    "steps=6", "prompts_per_step=4", "prompts_per_update=2", "group_size=4", "task.train_sizes=[3]",
    "task.unseen_sizes=[]", "task.train_per_size=8", "task.eval_per_size=4", "sampling.max_tokens=64",
    "evaluation.sampling.max_tokens=64", "evaluation.samples=1", "evaluation.every=2", "save_every=2", "log_rollouts=1",
    "task.forms=[atom,not,and,or,iff,if]", "engine.threads=1", "trackers=[]", "figures=false",
]  # fmt: skip


def start(folder: Path, resume: bool) -> subprocess.Popen[bytes]:
    """`rlcsd train` of the small run, or its resumption."""
    named = [f"output_dir={folder.parent}", f"run_name={folder.name}"]
    arguments = ["--resume", str(folder)] if resume else [*OVERRIDES, *named]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "rlcsd.cli", "train", *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def finish(folder: Path) -> None:
    """Begin the run, or resume it if it has a config, and wait until it ends well."""
    process = start(folder, (folder / "config.yaml").is_file())
    _, errors = process.communicate()
    if process.returncode:
        raise AssertionError(f"{folder}: exit code {process.returncode}: {errors.decode()[-2000:]}")


def kill(folder: Path, seconds: float) -> str:
    """Run or resume for so many seconds, then kill the whole group of processes; the phase it was in, as far as seen."""
    process = start(folder, (folder / "config.yaml").is_file())
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        partial = [path.name for path in folder.rglob(".*.partial")]
        return "while writing" if partial else "between writes" if (folder / "config.yaml").is_file() else "at start-up"
    if process.returncode:
        raise AssertionError(f"{folder}: exit code {process.returncode}: {errors.decode()[-2000:]}")
    return "after the end"


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
    return {key: value for key, value in record.items() if not key.startswith("time/")}


def trials(root: Path, kills: int, chain: int, seed: int) -> dict[str, object]:
    """Kill and resume until `kills` kills are done; counts of kills, runs and identical runs, and the differences."""
    rng = random.Random(seed)
    reference = root / "undisturbed"
    begun = time.perf_counter()
    finish(reference)
    whole = time.perf_counter() - begun
    done, runs, same, wrong = 0, 0, 0, []
    phases: dict[str, int] = {}
    while done < kills:
        folder = root / f"run_{runs}"
        for _ in range(rng.randint(1, min(chain, kills - done))):
            phase = kill(folder, rng.uniform(0.2, whole))
            if phase == "after the end":
                break
            phases[phase] = phases.get(phase, 0) + 1
            done += 1
        try:
            finish(folder)
            found = differences(reference, folder)
        except AssertionError as error:
            found = [str(error)]
        runs, same = runs + 1, same + (not found)
        if found:
            wrong.append({"run": folder.name, "found": found})
        else:
            shutil.rmtree(folder)
        print(f"{done} kills, {runs} runs, {same} identical", file=sys.stderr, flush=True)
    return {"kills": done, "runs": runs, "identical": same, "phases": phases, "wrong": wrong}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--chain", type=int, default=3, help="most kills of one run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("kills"), help="folder for the runs")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)
    print(json.dumps(trials(arguments.out, arguments.kills, arguments.chain, arguments.seed), indent=2))


if __name__ == "__main__":
    main()
