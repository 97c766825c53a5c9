"""What a warm start needs of a task: examples, the weights of their tokens, and the measurement behind the gates."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..inspection.token_kinds import kinds_of
from .examples import Example, draw_example
from .gates import GateReport
from .puzzle_gates import measure_puzzles
from .roll_call_examples import draw_roll_call
from .roll_call_gates import measure_roll_call

Offsets = Sequence[tuple[int, int]]
Weights = Callable[[str, Offsets], list[float]]  # of a response and the (start, end) of each token: loss weights


def puzzle_weights(verdict: float, text: str, offsets: Offsets) -> list[float]:
    """`verdict` on verdicts and in the box, 1 elsewhere."""
    return [verdict if kind in ("verdict", "conclusion") else 1.0 for kind in kinds_of(text, offsets)]


def roll_call_weights(verdict: float, text: str, offsets: Offsets) -> list[float]:
    """`verdict` on verdicts, 2 in the box, 1 elsewhere.

    The `;` that begins a worked line stands where a bare line has its verdict. It weighs as much, or the model would
    write fewer worked lines than it was shown.
    """
    kinds = kinds_of(text, offsets)
    pieces = [text[start:end] for start, end in offsets]
    return [
        verdict if kind == "verdict" or piece.startswith(";") else 2.0 if kind == "conclusion" else 1.0
        for kind, piece in zip(kinds, pieces, strict=True)
    ]


@dataclass(frozen=True)
class Kind:
    """`weights` takes a verdict's weight first; `about` and `signals` are what the model card says of the model and of
    the signals that are measured."""

    draw: Callable[[Any, random.Random], Example]
    weights: Callable[[float, str, Offsets], list[float]]
    measure: Callable[[Any, Any, Any], GateReport]
    about: str
    signals: str


KINDS: dict[str, Kind] = {
    "knights_and_knaves": Kind(
        draw_example,
        puzzle_weights,
        measure_puzzles,
        "A very small Qwen3-architecture language model that solves Knights & Knaves puzzles some of the time and "
        "reads\nreference solutions.",
        "What a hint does to the conclusion tokens of the model's own rollouts, by whether they are correct (nats, "
        "mean;\nthe contrast is e_ctr of RLCSD):",
    ),
    "roll_call": Kind(
        draw_roll_call,
        roll_call_weights,
        measure_roll_call,
        "A very small Qwen3-architecture language model that judges what five speakers say of three people whose roles "
        "are\nknown, gets all five right some of the time, and reads reference solutions.",
        "Shares of all lines, the standard deviation over responses of their share of worked lines, interjections per "
        "line;\nthe AUC of e_ctr (RLCSD) for right against wrong decisions, and its mean on both (nats):",
    ),
}
