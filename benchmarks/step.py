"""Where a training step's time goes: median seconds by phase over a few steps.

    python benchmarks/step.py [--steps 5] [--json FILE] [key=value …]

Any override of `rlcsd train` may follow, `method=grpo` or `model.path=…` for example.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from rlcsd.config.load import load
from rlcsd.engine.local import LocalEngine
from rlcsd.prepare import prepare
from rlcsd.run.folder import environment
from rlcsd.trainer import Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    config = load(arguments.overrides)
    prepared = prepare(config)
    engine = LocalEngine(config, prepared.method)
    trainer = Trainer(prepared, engine)
    seconds: dict[str, list[float]] = {}
    tokens = []
    for number in range(1, arguments.steps + 2):
        begun = time.perf_counter()
        result = trainer.step(number)
        if number == 1:
            continue  # the first step pays for warming up
        seconds.setdefault("step", []).append(time.perf_counter() - begun)
        for name, value in trainer.seconds.items():
            seconds.setdefault(name, []).append(value)
        tokens.append(sum(len(r.sample.ids) for g in result.groups for r in g.rollouts))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(
        f"{config.method.name} on {environment(engine)['device_name']}, {engine.device}: "
        f"{statistics.median(tokens):.0f} tokens a step"
    )
    for name, value in sorted(medians.items(), key=lambda item: -item[1]):
        print(f"  {name:<8}{value:8.2f} s   {value / medians['step']:5.0%}")
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"medians": medians, "seconds": seconds, "environment": environment(engine)}, indent=2)
        )


if __name__ == "__main__":
    main()
