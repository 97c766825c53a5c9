"""A training step against `examples/rlcsd_in_one_file.py`, and where its time goes.

    python benchmarks/step.py [--rounds 5] [--json FILE] [--smoke] [key=value …]
    python benchmarks/step.py --alone …               # the library's step only, with any method

Any override of `rlcsd train` may follow, `method=grpo` or `model.path=…` for example. Figures are medians over rounds;
a first step warms up and does not count.

The file is the straightforward version: transformers' `generate`, a pass for the old log-probs, every (hinted prompt,
response) pair in full, in padded batches of 16 rows as they come, with whole logits, and the prompt computed again for
each rollout. Both have the same weights, prompts and hyper-parameters, and they take turns. Each samples for itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from common import SMOKE_STEP, interleaved, median, options, parsed, synchronise, write

from rlcsd.config.load import load
from rlcsd.config.schema import Config
from rlcsd.engine.local import LocalEngine
from rlcsd.engine.local.model import PACKAGED
from rlcsd.prepare import Prepared, prepare
from rlcsd.prompts import question_text
from rlcsd.run.folder import environment
from rlcsd.trainer import Trainer

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import rlcsd_in_one_file as one

PHASES = {"sample": "sample", "score": "score", "update": "backward"}  # and the function of the file
Step = tuple[dict[str, float], int]  # seconds of each phase, and response tokens


class Straightforward:
    """Steps of the one file with the settings of a config, timed from outside."""

    def __init__(self, config: Config, prepared: Prepared) -> None:
        method: Any = config.method
        if (
            method.name != "rlcsd"
            or config.model.lora is not None
            or config.sampling.top_k
            or config.sampling.top_p < 1
        ):
            raise SystemExit("the one file is rlcsd with all weights, sampled without filters; add --alone")
        settings = {
            "GROUP": config.group_size, "K": method.k_max, "TAU": method.tau, "LAM": method.lam, "DELTA": method.delta,
            "ETA": method.eta, "EPSILON": method.epsilon, "SNAPSHOT_EVERY": method.snapshot_every,
            "PROMPTS_PER_UPDATE": config.prompts_per_update, "LEARNING_RATE": config.learning_rate,
            "MAX_TOKENS": config.sampling.max_tokens,
        }  # fmt: skip
        for name, value in settings.items():
            setattr(one, name, value)
        path = Path(PACKAGED.get(config.model.path, config.model.path)) / (config.model.gguf_file or "")
        self.learner, self.instruction = one.Learner(*one.load(str(path))), prepared.task.instruction
        self.seconds: dict[str, float] = {}
        self.rollouts: list[Any] = []
        for phase, function in PHASES.items():
            setattr(one, function, self._timed(phase, getattr(one, function)))

    def _timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            synchronise()
            begun = perf_counter()
            found = function(*arguments)
            synchronise()
            self.seconds[phase] = self.seconds.get(phase, 0.0) + perf_counter() - begun
            self.rollouts = [r for group in found for r in group] if phase == "sample" else self.rollouts
            return found

        return call

    def step(self, problems: list[Any]) -> Step:
        self.seconds = {}
        asked = [{"question": question_text(p.question, self.instruction), "answer": p.answer} for p in problems]
        self.learner.step(asked)
        return self.seconds, sum(len(rollout.response) for rollout in self.rollouts)


def library_step(trainer: Trainer, number: int) -> Step:
    result = trainer.step(number)
    seconds = {phase: result.metrics.get(f"time/{phase}", 0.0) for phase in PHASES}
    return seconds, sum(len(rollout.sample.ids) for group in result.groups for rollout in group.rollouts)


def main() -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--alone", action="store_true", help="without the straightforward version")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parsed(parser)
    config = load(["learning_rate=1e-9", *arguments.overrides, *(SMOKE_STEP if arguments.smoke else ())])
    prepared = prepare(config)
    trainer = Trainer(prepared, LocalEngine(config, prepared.method))
    plain = None if arguments.alone else Straightforward(config, prepared)
    steps: dict[str, list[Step]] = {"ours": [], "straightforward": []}

    def ours() -> None:
        steps["ours"].append(library_step(trainer, len(steps["ours"]) + 1))

    def straightforward() -> None:
        assert plain is not None
        steps["straightforward"].append(plain.step(trainer.problems(len(steps["straightforward"]) + 1)))

    candidates = {"ours": ours} if plain is None else {"straightforward": straightforward, "ours": ours}
    seconds = interleaved(candidates, arguments.rounds)
    facts = environment(trainer.engine)
    print(f"{config.method.name} on {facts['device_name']}: medians of {arguments.rounds} steps, seconds and shares")
    print("| step | tokens | seconds | sample | score | update |\n|---|---|---|---|---|---|")
    for name in candidates:
        counted = steps[name][1:]
        whole, tokens = median(seconds[name]), median([tokens for _, tokens in counted])
        parts = [median([phases.get(phase, 0.0) for phases, _ in counted]) for phase in PHASES]
        shown = " | ".join(f"{part:.2f} ({part / whole:.0%})" for part in parts)
        print(f"| {name} | {tokens:.0f} | {whole:.2f} | {shown} |")
    if plain is not None:
        print(f"ours / straightforward {median(seconds['ours']) / median(seconds['straightforward']):.2f}")
    phases = {name: [phases for phases, _ in found] for name, found in steps.items() if found}
    write(arguments.json, {"seconds": seconds, "phases": phases, "environment": facts})


if __name__ == "__main__":
    main()
