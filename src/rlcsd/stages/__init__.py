"""The stages of a training step as free functions: grade, hint, score. None of them needs a trainer."""

from __future__ import annotations

import random


def step_rng(seed: int, stage: str, step: int) -> random.Random:
    """The generator of one stage ("sample", "hint") of training step `step`. It depends on its arguments alone, so that
    a resumed run draws what it would have drawn without the interruption."""
    return random.Random(f"{seed}/{stage}/{step}")
