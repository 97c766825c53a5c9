"""Threads on a busy machine: a step of the demo with two threads and with one, alone and beside other programs.

    python benchmarks/threads.py [--busy N] [--rounds N] [--nice N] [--json FILE] [--smoke]   # N busy loops, default 2

Each case is a process of its own, loaded before anything is measured; the cases take turns. Whatever else runs on the
machine counts too, so its load is printed; with `--nice -19` (as root) the benchmark and its busy loops go first.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from common import SMOKE_STEP, options, parsed, write

CASES = {"two threads": 2, "one thread": 1}
STEP = """
import sys, time
from rlcsd.config.load import load
from rlcsd.engine.interface import build_engine
from rlcsd.prepare import prepare
from rlcsd.trainer import Trainer
config = load([f"engine.threads={sys.argv[1]}", "task.eval_per_size=2", "engine.self_check=false", *sys.argv[2:]])
prepared = prepare(config)
trainer = Trainer(prepared, build_engine(config, prepared.method))
trainer.step(1)
print("ready", flush=True)
for number, _ in enumerate(sys.stdin, start=2):
    begun = time.perf_counter()
    trainer.step(number)
    print(time.perf_counter() - begun, flush=True)
"""


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def seconds(process: subprocess.Popen[str]) -> float:
    """Of one more step."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    return float(said(process))


@contextmanager
def busy(count: int) -> Iterator[None]:
    """`count` loops beside what is done meanwhile."""
    others = [python("while True: pass") for _ in range(count)]
    try:
        yield
    finally:
        for process in others:
            process.kill()
            process.wait()


def main() -> None:
    parser = options(__doc__, rounds=2)
    parser.add_argument("--busy", type=int, default=2, help="busy loops beside the benchmark")
    parser.add_argument("--nice", type=int, default=0, help="added to the priority; below 0 as root only")
    arguments = parsed(parser)
    if not arguments.smoke:
        os.nice(arguments.nice)
    print(f"load before: {os.getloadavg()[0]:.1f}")
    running = {}
    cases = dict(list(CASES.items())[-1:]) if arguments.smoke else CASES
    for name, threads in cases.items():
        running[name] = python(STEP, str(threads), *(SMOKE_STEP if arguments.smoke else ()))
        assert said(running[name]) == "ready"
    found: dict[str, dict[str, float]] = {}
    for count in (0, arguments.busy):
        taken: dict[str, list[float]] = {name: [] for name in cases}
        with busy(count):
            for _ in range(arguments.rounds):
                for name, process in running.items():
                    taken[name].append(seconds(process))
        middle = {name: statistics.median(values) for name, values in taken.items()}
        shown = ", ".join(f"{name} {value:.1f} s" for name, value in middle.items())
        print(f"beside {count} busy processes: {shown}", flush=True)
        found[str(count)] = middle
    for process in running.values():
        process.kill()
    write(arguments.json, {"busy": found})


if __name__ == "__main__":
    main()
