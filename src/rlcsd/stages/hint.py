"""The hint stage: which solution or sibling the teacher is shown for each rollout, and the teacher's prompts.

For a rollout y of a group, correct hints come from G⁺ \\ {y} or from the data set, wrong hints from
G⁻ \\ {y} (RLCSD, arXiv 2606.11709, section 3.2).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import InputError
from ..methods.base import ContrastConfig, HintedConfig, Method
from ..metrics import Mean, Metrics, Sum
from ..prompts import BOXED_INSTRUCTION, data_ids, hint_text, render, student_prompt, teacher_turn
from ..records import Group, Hint, Hints, Problem, Rollout, TrainingExample
from ..verifiers.boxed import without_thinking

NO_HINT = Hint(None, "")  # the teacher, which is another model then, sees the student's own prompt


@dataclass(frozen=True)
class TeacherPrompts:
    """How the teacher's prompts are made.

    `max_tokens` bounds the teacher's prompt and the response together. `instruction` follows the question.
    """

    tokenizer: Any
    max_tokens: int
    thinking: bool = True
    instruction: str = BOXED_INSTRUCTION


@dataclass(frozen=True)
class Draw:
    """The hints drawn for one rollout, or why there are none, and the sizes of its two pools."""

    hints: Hints | None
    missing: str | None  # "correct" or "wrong": the pool that is empty; "feedback": the verifier said nothing
    correct_pool: int
    wrong_pool: int


@dataclass(frozen=True)
class HintCounts:
    """How the draws of a training step went."""

    rollouts: int = 0
    usable: int = 0
    unusable_groups: int = 0
    correct_pool: int = 0
    wrong_pool: int = 0
    cut: int = 0
    no_room: int = 0
    missing: Counter[str] = field(default_factory=Counter)

    def metrics(self) -> Metrics:
        rollouts = max(self.rollouts, 1)
        return {
            "hints/usable_share": Mean(self.usable / rollouts, self.rollouts),
            "hints/skipped_rollouts": Sum(self.rollouts - self.usable),
            "hints/unusable_groups": Sum(self.unusable_groups),
            "hints/correct_pool": Mean(self.correct_pool / rollouts, self.rollouts),
            "hints/wrong_pool": Mean(self.wrong_pool / rollouts, self.rollouts),
            "hints/cut": Sum(self.cut),
            "hints/no_room": Sum(self.no_room),
            **{f"hints/without_{pool}": Sum(count) for pool, count in self.missing.items()},
        }


@dataclass(frozen=True)
class HintedRows:
    """The rows of each group that stay in the update, in order, and how the draws went."""

    rows: list[list[TrainingExample]]
    counts: HintCounts


def hint_rows(groups: Sequence[Group], method: Method, prompts: TeacherPrompts, rng: random.Random) -> HintedRows:
    """Draw hints for every rollout and make the teacher's prompts.

    A rollout without a usable hint is left out or kept without a teacher, as `method.config.unusable` says.

    Raises:
        InputError: a hint from the data set is wanted and a problem has no solution.
    """
    config = method.config
    if not isinstance(config, HintedConfig):
        plain = [
            [_plain(group, number, place) for place in range(len(group.rollouts))]
            for number, group in enumerate(groups)
        ]
        return HintedRows(plain, HintCounts())
    draws = [draw_hints(group, config, method.needs_contrast, rng) for group in groups]
    rows, outcomes = [], []
    for number, (group, drawn) in enumerate(zip(groups, draws, strict=True)):
        made = [_row(group, number, place, draw.hints, method, prompts) for place, draw in enumerate(drawn)]
        rows.append([row for row, _ in made if row is not None])
        outcomes += [outcome for _, outcome in made]
    return HintedRows(rows, _counts(draws, outcomes))


def _counts(draws: Sequence[Sequence[Draw]], outcomes: Sequence[Counter[str]]) -> HintCounts:
    flat = [draw for drawn in draws for draw in drawn]
    happened: Counter[str] = sum(outcomes, Counter())
    return HintCounts(
        rollouts=len(flat),
        usable=sum(draw.hints is not None for draw in flat),
        unusable_groups=sum(all(draw.hints is None for draw in drawn) for drawn in draws),
        correct_pool=sum(draw.correct_pool for draw in flat),
        wrong_pool=sum(draw.wrong_pool for draw in flat),
        cut=happened["cut"],
        no_room=happened["no_room"],
        missing=Counter(draw.missing for draw in flat if draw.missing is not None),
    )


def _plain(group: Group, number: int, place: int, hints: Hints | None = None) -> TrainingExample:
    return TrainingExample(
        group.prompt, group.rollouts[place], group.advantages[place], hints=hints, group=number, index=place
    )


def _row(
    group: Group, number: int, place: int, hints: Hints | None, method: Method, prompts: TeacherPrompts
) -> tuple[TrainingExample | None, Counter[str]]:
    """The rollout with its teacher's prompts (without them, or None, if it has no usable hint), and what was cut."""
    plain = _plain(group, number, place, hints)
    kept = plain if method.config.unusable == "plain" else None
    if hints is None:
        return kept, Counter()
    if plain.advantage == 0 and not method.scores_zero_advantage:
        return plain, Counter()
    contexts, cuts = zip(
        *(
            _context(group.problem, plain.rollout, hint, method.config.template, prompts)
            for hint in (hints.correct, *hints.extra_correct, *hints.wrong)
        ),
        strict=True,
    )
    if any(context is None for context in contexts):
        return kept, Counter(cut=sum(cuts), no_room=1)
    correct, *others = contexts
    more, wrong = tuple(others[: len(hints.extra_correct)]), tuple(others[len(hints.extra_correct) :])
    return replace(plain, teacher_prompt=correct, extra_prompts=more, contrast_prompts=wrong), Counter(cut=sum(cuts))


def _context(
    problem: Problem, rollout: Rollout, hint: Hint, template: str, prompts: TeacherPrompts
) -> tuple[tuple[int, ...] | None, bool]:
    room = prompts.max_tokens - len(rollout.sample)
    return teacher_context(
        prompts.tokenizer,
        problem,
        hint,
        template=template,
        thinking=prompts.thinking,
        room=room,
        instruction=prompts.instruction,
    )


def solution_hint(problem: Problem, answer_only: bool = False) -> Hint:
    """The data set's solution, or its answer alone.

    Raises:
        InputError: the problem has no worked solution.
    """
    if answer_only:
        return Hint(None, problem.answer)
    if not problem.solution:
        raise InputError(
            "method.hint_source=gt_cot: the data set has problems without a solution; use answer_only or a "
            "rollout source"
        )
    return Hint(problem.solution, problem.answer)


def pools(group: Group, place: int, exclude_self: bool = True) -> tuple[list[int], list[int]]:
    """Places that may serve the rollout at `place` as correct and as wrong hint.

    A wrong rollout without a boxed answer has none to state and is never a hint.
    """
    kept = [p for p in range(len(group.rollouts)) if p != place or not exclude_self]
    wrong = [p for p in kept if not group.rollouts[p].is_correct and group.rollouts[p].boxed is not None]
    return [p for p in kept if group.rollouts[p].is_correct], wrong


def draw_hints(group: Group, config: HintedConfig, contrast: bool, rng: random.Random) -> list[Draw]:
    """The draw for each rollout of a group; its `hints` are None where a needed pool is empty."""
    exclude_self = config.exclude_self if isinstance(config, ContrastConfig) else True
    from_group = config.hint_source in ("own_rollout", "self_rollout")
    drawn = []
    for place in range(len(group.rollouts)):
        correct_pool, wrong_pool = pools(group, place, exclude_self)
        missing = "correct" if from_group and not correct_pool else "wrong" if contrast and not wrong_pool else None
        hints = None
        if config.hint_source == "feedback":
            said = group.rollouts[place].verdict.feedback
            hints, missing = (Hints(Hint(said, "", place, "feedback")), None) if said else (None, "feedback")
        elif missing is None:
            hints = _draw(group, config, correct_pool if from_group else None, wrong_pool if contrast else (), rng)
        drawn.append(Draw(hints, missing, len(correct_pool), len(wrong_pool)))
    return drawn


def _draw(
    group: Group, config: HintedConfig, correct_pool: list[int] | None, wrong_pool: Sequence[int], rng: random.Random
) -> Hints:
    """`correct_pool` None: the correct hint is the data set's (or none at all); an empty `wrong_pool`: no wrong
    hints."""

    def sibling(place: int) -> Hint:
        rollout = group.rollouts[place]
        text = without_thinking(rollout.text) if config.strip_thinking else rollout.text
        return Hint(text, rollout.boxed or group.problem.answer, place)  # a verifier may accept an answer without a box

    if config.hint_source == "none":
        correct = NO_HINT
    elif correct_pool is not None:
        correct = sibling(rng.choice(correct_pool))
    else:
        correct = solution_hint(group.problem, config.hint_source == "answer_only")
    if not wrong_pool:
        return Hints(correct)
    assert isinstance(config, ContrastConfig)
    wrong = rng.sample(wrong_pool, min(config.k_max, len(wrong_pool)))
    unused = [place for place in correct_pool or () if place != correct.index]
    more = rng.sample(unused, min(config.max_correct_hints - 1, len(unused)))
    return Hints(correct, tuple(map(sibling, wrong)), tuple(map(sibling, more)))


def teacher_context(
    tokenizer: Any,
    problem: Problem,
    hint: Hint,
    *,
    template: str = "neutral",
    thinking: bool = True,
    room: int | None = None,
    instruction: str = BOXED_INSTRUCTION,
) -> tuple[tuple[int, ...] | None, bool]:
    """Token ids of the teacher's prompt, and whether the hint's text had to be cut to fit `room` tokens.

    Only the hint's own text is cut, at its end; question, final answer and template stay whole. None if even
    without any of that text the prompt does not fit.
    """
    if hint == NO_HINT:
        return tuple(student_prompt(tokenizer, problem, instruction, thinking)), False
    feedback = hint.kind == "feedback"

    def rendered(text: str | None) -> list[int]:
        words = text or "" if feedback else hint_text(text, hint.answer)
        turn = teacher_turn(problem.question, words, template, instruction, problem.history, feedback)
        return render(tokenizer, turn, thinking, problem.history)

    ids = rendered(hint.text)
    if room is None or len(ids) <= room:
        return tuple(ids), False
    text_ids = data_ids(tokenizer, hint.text or "")
    kept = len(text_ids)
    while len(ids) > room:
        if kept == 0:
            return None, True
        kept = max(0, kept - max(1, len(ids) - room))
        if kept == 0 and feedback:  # nothing but the words around it would be left
            return None, True
        ids = rendered(tokenizer.decode(text_ids[:kept]) if kept else None)
    return tuple(ids), True
