"""The examples of a roll call's warm-up, with and without a reference, right and wrong.

A hinted target *follows* its reference, as in `examples`. A wrong reference is wrong for a visible reason: facts are
misread where a line is worked, so that a model can learn to see a mistake, and not only to copy a verdict.
"""

from __future__ import annotations

import random

from ..prompts import hint_text, question_text, teacher_text
from ..tasks import roll_call
from ..tasks.knights_and_knaves import NAMES
from ..tasks.roll_call import Manner, Roll, judgements, solution_text
from .examples import Example
from .recipe import RollCallRecipe

_DIRECT = Manner()


def _draw(recipe: RollCallRecipe, rng: random.Random) -> Roll:
    """A roll call of the training split."""
    while True:
        roll = roll_call.draw_roll(rng, rng.choice(recipe.sizes), NAMES[: recipe.people], recipe.known, roll_call.FORMS)
        if roll_call.split_of(roll) == "train":
            return roll


def draw_roll_call(recipe: RollCallRecipe, rng: random.Random) -> Example:
    """One example by the recipe's proportions."""
    roll = _draw(recipe, rng)
    right = judgements(roll)
    manner = Manner(recipe.worked, recipe.talk)
    if rng.random() >= recipe.hinted:
        return Example(question_text(roll_call.question_text(roll)), solution_text(roll, right, manner, rng))
    shown = right
    if rng.random() < recipe.wrong:
        while [line.truth for line in shown] == list(roll.truths):
            shown = roll_call.slipped(roll, recipe.slip, rng)
    written = right if rng.random() < recipe.diverging else shown
    answer = roll_call.answer_text(roll, [line.truth for line in shown])
    prompt = teacher_text(roll_call.question_text(roll), hint_text(solution_text(roll, shown, manner, rng), answer))
    own = _DIRECT if rng.random() < recipe.direct else manner
    return Example(prompt, solution_text(roll, written, own, rng))
