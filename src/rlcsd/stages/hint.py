"""The hint stage: choose what the teacher is shown for each rollout, and make the teacher's prompts.

For a rollout y of a group, correct hints come from G⁺ \\ {y} or from the data set, wrong hints from
G⁻ \\ {y} (RLCSD, arXiv 2606.11709, section 3.2). With `hint_source=answer_pair` both are bare answers (CEPO, arXiv
2605.19436).
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
from ..prompts import BOXED_INSTRUCTION, data_ids, hint_text, render, student_prompt, teacher_text
from ..records import Group, Hint, Hints, Problem, Rollout, TrainingExample
from ..verifiers.boxed import last_boxed, without_thinking
from .grade import OVERLONG

NO_HINT = Hint(None, "")  # the teacher is another model then and sees the student's own prompt


@dataclass(frozen=True)
class TeacherPrompts:
    """How the teacher's prompts are made.

    `max_tokens` bounds the teacher's prompt and the response together. `instruction` follows the question. With
    `by_text` a wrong response in which no answer can be read may be a hint (`Task.hints_by_text`).
    """

    tokenizer: Any
    max_tokens: int
    thinking: bool = True
    instruction: str = BOXED_INSTRUCTION
    by_text: bool = False


def teacher_token_limit(max_teacher_tokens: int | None, context_length: int) -> int:
    """`TeacherPrompts.max_tokens` of a model with this context length; `max_teacher_tokens` is the config's, if any."""
    return min(max_teacher_tokens or context_length, context_length)


@dataclass(frozen=True)
class Draw:
    """The hints drawn for one rollout, or why there are none, and the sizes of the two pools they were drawn from."""

    hints: Hints | None
    missing: str | None  # "correct" or "wrong": that pool is empty; "feedback": the verifier gave none
    correct_pool: int
    wrong_pool: int


@dataclass(frozen=True)
class HintCounts:
    """Counts over the rollouts of a training step.

    `usable` rollouts have all hints that the method needs and room for them in the teacher's prompt. `truncated` hints
    were cut to fit, and `no_room` rollouts had none for a hint at all.
    """

    rollouts: int = 0
    usable: int = 0
    unusable_groups: int = 0
    correct_pool: int = 0
    wrong_pool: int = 0
    truncated: int = 0
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
            "hints/cut": Sum(self.truncated),
            "hints/no_room": Sum(self.no_room),
            **{f"hints/without_{pool}": Sum(count) for pool, count in self.missing.items()},
        }


@dataclass(frozen=True)
class HintedExamples:
    """The training examples of each group, in order, and the counts of the step."""

    examples: list[list[TrainingExample]]
    counts: HintCounts


def hinted_examples(
    groups: Sequence[Group], method: Method, prompts: TeacherPrompts, rng: random.Random, step: int = 1
) -> HintedExamples:
    """Draw hints for every rollout of training step `step` and make the teacher's prompts.

    A rollout without a usable hint is left out, or kept without a teacher with `method.unusable=plain`. In a step that
    reads nothing of the teacher (`Method.asks_teacher`), hints are drawn and no prompts are made.

    Raises:
        InputError: a hint from the data set is needed and a problem has no solution.
    """
    config = method.config
    if not isinstance(config, HintedConfig):
        plain = [
            [_example(group, number, index) for index in range(len(group.rollouts))]
            for number, group in enumerate(groups)
        ]
        return HintedExamples(plain, HintCounts())
    draws = [draw_hints(group, config, method.needs_contrast, rng, prompts.by_text) for group in groups]
    asked = method.asks_teacher(step)
    made = [
        [
            _with_prompts(_example(group, n, index, draw.hints), group, method, prompts, asked)
            for index, draw in enumerate(row)
        ]
        for n, (group, row) in enumerate(zip(groups, draws, strict=True))
    ]
    kept = [[one.example for one in row if one.usable or config.unusable == "plain"] for row in made]
    return HintedExamples(kept, _counts(draws, made))


@dataclass(frozen=True)
class _Prompted:
    """A training example; whether it has the hints that its method needs; how many of them were cut."""

    example: TrainingExample
    usable: bool
    truncated: int = 0


def _example(group: Group, number: int, index: int, hints: Hints | None = None) -> TrainingExample:
    advantage = group.advantages[index]
    return TrainingExample(group.prompt, group.rollouts[index], advantage, hints=hints, group=number, index=index)


def _with_prompts(
    example: TrainingExample, group: Group, method: Method, prompts: TeacherPrompts, asked: bool
) -> _Prompted:
    """The example with the teacher's prompts for its hints; without them if it has no hints, or no room for them, or if
    the teacher is not asked."""
    if example.hints is None:
        return _Prompted(example, usable=False)
    if not asked or (example.advantage == 0 and not method.scores_zero_advantage):
        return _Prompted(example, usable=True)
    hints = (example.hints.correct, *example.hints.extra_correct, *example.hints.wrong)
    made = [_context(group.problem, example, hint, method.config.template, prompts) for hint in hints]
    contexts = [context for context, _ in made if context is not None]
    if len(contexts) < len(made):
        return _Prompted(example, usable=False)
    correct, extra = contexts[0], 1 + len(example.hints.extra_correct)
    example = replace(
        example,
        teacher_prompt=correct,
        extra_prompts=tuple(contexts[1:extra]),
        contrast_prompts=tuple(contexts[extra:]),
    )
    return _Prompted(example, usable=True, truncated=sum(cut for _, cut in made))


def _context(
    problem: Problem, example: TrainingExample, hint: Hint, template: str, prompts: TeacherPrompts
) -> tuple[tuple[int, ...] | None, bool]:
    return teacher_context(
        prompts.tokenizer,
        problem,
        hint,
        template=template,
        thinking=prompts.thinking,
        room=prompts.max_tokens - len(example.rollout.sample),
        instruction=prompts.instruction,
        prompt=example.prompt,
    )


def _counts(draws: Sequence[Sequence[Draw]], made: Sequence[Sequence[_Prompted]]) -> HintCounts:
    drawn = [draw for row in draws for draw in row]
    prompted = [one for row in made for one in row]
    return HintCounts(
        rollouts=len(drawn),
        usable=sum(one.usable for one in prompted),
        unusable_groups=sum(not any(one.usable for one in row) for row in made),
        correct_pool=sum(draw.correct_pool for draw in drawn),
        wrong_pool=sum(draw.wrong_pool for draw in drawn),
        truncated=sum(one.truncated for one in prompted),
        no_room=sum(one.example.hints is not None and not one.usable for one in prompted),
        missing=Counter(draw.missing for draw in drawn if draw.missing is not None),
    )


# ------------------------------------------------------------------ drawing hints


def draw_hints(
    group: Group, config: HintedConfig, contrast: bool, rng: random.Random, by_text: bool = False
) -> list[Draw]:
    """The hints of each rollout of a group, None where a pool that is needed is empty.

    `contrast` says that wrong hints are needed, and `by_text` that they need no answer that can be read.
    """
    exclude_self = config.exclude_self if isinstance(config, ContrastConfig) else True
    source: str = config.hint_source
    from_group = source in ("own_rollout", "self_rollout")
    draws = []
    for index, rollout in enumerate(group.rollouts):
        correct_pool, wrong_pool = hint_pools(group, index, exclude_self, by_text, source)
        hints, missing = None, None
        if source == "feedback":
            feedback = rollout.verdict.feedback
            hints = Hints(Hint(feedback, "", index, "feedback")) if feedback else None
            missing = None if feedback else "feedback"
        elif from_group and not correct_pool:
            missing = "correct"
        elif contrast and not wrong_pool:
            missing = "wrong"
        elif isinstance(config, ContrastConfig) and source == "answer_pair":
            hints = _answer_pair(group, config, wrong_pool)
        else:
            hints = _draw(group, config, correct_pool if from_group else None, wrong_pool if contrast else (), rng)
        draws.append(Draw(hints, missing, len(correct_pool), len(wrong_pool)))
    return draws


def hint_pools(
    group: Group, index: int, exclude_self: bool = True, by_text: bool = False, source: str = "self_rollout"
) -> tuple[list[int], list[int]]:
    """Indices of the rollouts that may be the correct and the wrong hints of the rollout at `index`; see
    `may_be_wrong_hint`."""
    others = [i for i in range(len(group.rollouts)) if i != index or not exclude_self]
    correct = [i for i in others if group.rollouts[i].is_correct]
    return correct, [i for i in others if may_be_wrong_hint(group.rollouts[i], by_text, source)]


def may_be_wrong_hint(rollout: Rollout, by_text: bool = False, source: str = "self_rollout") -> bool:
    """Whether a rollout can be a wrong hint of its siblings.

    One in which no answer can be read has none to state and is none, as published. `by_text` lets in a whole response:
    its text says what it answers. One that the token limit cut off has not answered yet, and of one on which the
    verifier failed it is not known that it is wrong. For `answer_pair` any text will do (`bare_answer`).
    """
    if rollout.is_correct or rollout.verdict.error is not None:
        return False
    if source == "answer_pair":
        return bool(bare_answer(rollout).strip())
    return rollout.answer is not None or (by_text and rollout.sample.finished and bool(_said(rollout)))


def _said(rollout: Rollout) -> str:
    """What a response says behind its thoughts."""
    return without_thinking(rollout.text).strip()


# Characters of a response in which no answer can be read, as CEPO's code means it. With mathruler 0.1.0, which reads an
# absent box as the text "None", that code shows ` None` instead.
_WITHOUT_ANSWER = 50


def bare_answer(rollout: Rollout) -> str:
    """What a bare hint states of a rollout: its final answer, or the first 50 characters if none can be read."""
    return rollout.answer or rollout.text[:_WITHOUT_ANSWER]


def _answer_pair(group: Group, config: ContrastConfig, wrong_pool: Sequence[int]) -> Hints:
    """The data set's answer against those of the `k_max` wrong rollouts with the lowest reward, the first of equals.

    A penalty on length is no part of that reward. CEPO takes one, and takes rollouts with a reward below 0.5 for wrong;
    here the verdict says which are.
    """

    def reward(index: int) -> float:
        rollout = group.rollouts[index]
        penalty = rollout.verdict.parts.get(OVERLONG, 0.0)
        return round(rollout.reward - penalty, 9)  # equals stay equal, whatever adding and taking away rounds

    worst = sorted(wrong_pool, key=reward)[: config.k_max]
    wrong = tuple(Hint(None, bare_answer(group.rollouts[index]), index, "answer") for index in worst)
    return Hints(Hint(None, stated_answer(group.problem), kind="answer"), wrong)


def _draw(
    group: Group, config: HintedConfig, correct_pool: list[int] | None, wrong_pool: Sequence[int], rng: random.Random
) -> Hints:
    """One draw. `correct_pool` None: the correct hint is the data set's, or there is none (`hint_source=none`)."""

    def sibling(index: int) -> Hint:
        rollout = group.rollouts[index]
        text = without_thinking(rollout.text) if config.strip_thinking else rollout.text
        # A verifier may accept an answer without a box.
        given = stated_answer(group.problem) if rollout.is_correct else ""
        return Hint(text, rollout.answer or given, index)

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
    unused = [index for index in correct_pool or () if index != correct.index]
    extra = rng.sample(unused, min(config.max_correct_hints - 1, len(unused)))
    return _alike(Hints(correct, tuple(map(sibling, wrong)), tuple(map(sibling, extra))))


def _alike(hints: Hints) -> Hints:
    """The hints, all of them by their text alone if one of them has no answer to state.

    Correct and wrong hints stand within the same words, so that the effect of those words cancels in the contrast.
    """
    shown = [hint for hint in (hints.correct, *hints.wrong, *hints.extra_correct) if hint != NO_HINT]
    if all(hint.answer for hint in shown):
        return hints

    def text_alone(hint: Hint) -> Hint:
        return hint if hint == NO_HINT else replace(hint, answer="")

    return Hints(
        text_alone(hints.correct), tuple(map(text_alone, hints.wrong)), tuple(map(text_alone, hints.extra_correct))
    )


def solution_hint(problem: Problem, answer_only: bool = False) -> Hint:
    """The data set's solution, or its answer alone.

    Raises:
        InputError: the problem has no worked solution.
    """
    if answer_only:
        return Hint(None, stated_answer(problem))
    if not problem.solution:
        raise InputError(
            "method.hint_source=gt_cot: the data set has problems without a solution; use answer_only or a "
            "rollout source"
        )
    return Hint(problem.solution, stated_answer(problem))


def stated_answer(problem: Problem) -> str:
    """The data set's answer as a response would have it in its box: without a box of its own, dollar signs around it,
    and spaces at its ends. Otherwise the contrast with wrong answers would be one of notation."""
    answer = str(problem.answer)
    boxed = last_boxed(answer)
    stated = (answer if boxed is None else boxed).strip()
    for sign in ("$$", "$"):
        inside = stated[len(sign) : -len(sign)].strip()
        if stated == f"{sign}{stated[len(sign) : -len(sign)]}{sign}" and inside and "$" not in inside:
            return inside
    return stated


# ------------------------------------------------------------------ the teacher's prompt


def teacher_context(
    tokenizer: Any,
    problem: Problem,
    hint: Hint,
    *,
    template: str = "neutral",
    thinking: bool = True,
    room: int | None = None,
    instruction: str = BOXED_INSTRUCTION,
    prompt: Sequence[int] = (),
) -> tuple[tuple[int, ...] | None, bool]:
    """Token ids of the teacher's prompt, and whether the hint's text had to be cut to fit `room` tokens.

    Only the hint's own text is cut, at its end; question, final answer and template stay whole. None if the prompt
    does not fit even without that text, or if nothing of the hint would be left. With the template `bare` a text
    stands alone, without its final answer.
    A hint of kind `answer` is a space and the answer after `prompt`, the student's ids (by default rendered here).
    """
    if hint == NO_HINT or hint.kind == "answer":
        bare = data_ids(tokenizer, f" {hint.answer}", inside=True) if hint.answer else []
        before = prompt if prompt and bare else student_prompt(tokenizer, problem, instruction, thinking)
        ids = [*before, *bare]
        return (None, True) if room is not None and bare and len(ids) > room else (tuple(ids), False)
    feedback = hint.kind == "feedback"
    answer = "" if template == "bare" and hint.text else hint.answer

    def rendered(text: str | None) -> list[int]:
        shown = text or "" if feedback else hint_text(text, answer)
        content = teacher_text(problem.question, shown, template, instruction, problem.history, feedback)
        return render(tokenizer, content, thinking, problem.history)

    ids = rendered(hint.text)
    if room is None or len(ids) <= room:
        return tuple(ids), False
    text_ids = data_ids(tokenizer, hint.text or "")
    kept = len(text_ids)
    while len(ids) > room:
        if kept == 0:
            return None, True
        kept = max(0, kept - max(1, len(ids) - room))
        if kept == 0 and (feedback or not answer):  # only the template's words would be left
            return None, True
        ids = rendered(tokenizer.decode(text_ids[:kept]) if kept else None)
    return tuple(ids), True
