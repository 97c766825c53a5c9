"""Threads on a busy machine: one small step of the demo's model with two threads and with one, beside other programs.

    python benchmarks/threads.py [--busy N] [--rounds N] [--json FILE]   # N busy loops beside it, by default none

Each case is a process of its own, because OpenMP reads its settings once: `spinning` is the libraries' own default
(threads that wait spin for a while), `sleeping` what rlcsd sets. The cases take turns. Whatever else runs on the
machine counts too; the load average is printed with each round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

from common import write

SPINS = {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}  # the libraries' own values
SLEEPS = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
CASES = {"two threads, spinning": (SPINS, 2), "two threads, sleeping": (SLEEPS, 2), "one thread": (SLEEPS, 1)}
STEP = """
import sys, time
from rlcsd.config.load import build_method, load
from rlcsd.engine.base import build_engine
from rlcsd.tasks.build import build_task
from rlcsd.trainer import Trainer
config = load([f"engine.threads={sys.argv[1]}", "task.eval_per_size=2", "prompts_per_step=2", "prompts_per_update=2",
               "group_size=4", "sampling.max_tokens=48", "engine.self_check=false"])
method = build_method(config)
trainer = Trainer(config, build_task(config.task), method, build_engine(config, method))
trainer.step(1)
begun = time.perf_counter()
trainer.step(2)
print(time.perf_counter() - begun)
"""


def seconds(settings: dict[str, str], threads: int, limit: float = 300.0) -> float:
    """One warm step in a process of its own; `limit` if it takes longer with all that is loaded before it."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"} | settings
    command = [sys.executable, "-W", "ignore", "-c", STEP, str(threads)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit, check=True)
    except subprocess.TimeoutExpired:
        return limit
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(arguments.busy)]
    taken: dict[str, list[float]] = {name: [] for name in CASES}
    try:
        for _ in range(arguments.rounds):
            load = os.getloadavg()[0]
            for name, (settings, threads) in CASES.items():
                taken[name].append(seconds(settings, threads))
            print(f"load {load:.1f}: " + ", ".join(f"{name} {t[-1]:.1f} s" for name, t in taken.items()), flush=True)
    finally:
        for process in others:
            process.kill()
    middle = {name: statistics.median(values) for name, values in taken.items()}
    print("median: " + ", ".join(f"{name} {value:.1f} s" for name, value in middle.items()))
    write(arguments.json, {"busy": arguments.busy, "seconds": taken, "median": middle})


if __name__ == "__main__":
    main()
