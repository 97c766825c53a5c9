"""What the student and the teacher are asked: chat messages, and the "Reference Solution" template.

A teacher prompt is the student's prompt with one hint after the question. A correct and a wrong hint
are put into byte-identical words, so that the effect of those words on style cancels in the contrast
(RLCSD, arXiv 2606.11709, section 3). The wording is this project's own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from .errors import InputError, first_line
from .records import Message, Problem

# Each wrapper surrounds the hint; `{hint}` occurs exactly once.
TEMPLATES = {
    "neutral": "Reference Solution:\n{hint}\n\nNow give your own solution to the question above.",
    "verbose": (
        "Before you begin, here is a Reference Solution that somebody wrote for the question above. "
        "Read it carefully from beginning to end.\n\n=== Reference Solution ===\n{hint}\n=== End of Reference "
        "Solution ===\n\n"
        "Now that you have read it, solve the question above in your own words, step by step."
    ),
    "terse": "Reference Solution: {hint}\nSolve it.",
}

# The same around what a verifier said of the rollout that the teacher judges.
FEEDBACK_TEMPLATES = {
    "neutral": "Feedback on an earlier attempt:\n{hint}\n\nNow give your own solution to the question above.",
    "verbose": (
        "Before you begin, here is the feedback that an earlier attempt at the question above was given. Read it "
        "carefully from beginning to end.\n\n=== Feedback on the Attempt ===\n{hint}\n=== End of Feedback ===\n\n"
        "Now that you have read it, solve the question above in your own words, step by step."
    ),
    "terse": "Feedback on an attempt: {hint}\nSolve it.",
}

BOXED_INSTRUCTION = "Put the final answer in \\boxed{}."


@dataclass(frozen=True)
class Data:
    """Text from a data set, a model or a user: encoded so that nothing in it becomes a control token."""

    text: str


Turn = tuple[str | Data, ...]  # a user's turn in pieces: the project's own words, and data


def question_text(question: str, instruction: str = BOXED_INSTRUCTION, history: Sequence[Message] = ()) -> str:
    """The user's turn as the student sees it; a conversation that itself asks for a box keeps its own words."""
    asked = any("\\boxed" in text for text in (question, *(text for role, text in history if role != "assistant")))
    return question if asked or not instruction else f"{question} {instruction}"


def hint_text(text: str | None, answer: str) -> str:
    """The hint itself: a solution or rollout (None for the answer alone) and its final answer."""
    final = f"Correct final answer: {answer}"
    return final if not text else f"{text.strip()}\n\n{final}"


def teacher_turn(
    question: str,
    hint: str,
    template: str = "neutral",
    instruction: str = BOXED_INSTRUCTION,
    history: Sequence[Message] = (),
    feedback: bool = False,
) -> Turn:
    """The user's turn as the teacher sees it; `feedback` says that the hint is a verifier's words, and no solution.

    Raises:
        ValueError: `template` is not a key of TEMPLATES.
    """
    if template not in TEMPLATES:
        raise ValueError(f"unknown hint template {template!r}; known: {', '.join(TEMPLATES)}")
    before, after = (FEEDBACK_TEMPLATES if feedback else TEMPLATES)[template].split("{hint}")
    space = before[len(before.rstrip(" ")) :]  # many vocabularies join a space with the word after it
    asked = question_text(question, instruction, history)
    return Data(asked), f"\n\n{before.rstrip(' ')}", Data(space + hint), after


def teacher_text(question: str, hint: str, template: str = "neutral", instruction: str = BOXED_INSTRUCTION) -> str:
    """`teacher_turn` as one text."""
    return "".join(
        piece.text if isinstance(piece, Data) else piece
        for piece in teacher_turn(question, hint, template, instruction)
    )


def student_prompt(
    tokenizer: Any, problem: Problem | str, instruction: str = BOXED_INSTRUCTION, thinking: bool = True
) -> list[int]:
    """Token ids of what the student is asked: a problem, or a question alone."""
    problem = Problem(problem, "") if isinstance(problem, str) else problem
    asked = question_text(problem.question, instruction, problem.history)
    return render(tokenizer, asked, thinking, problem.history)


# ------------------------------------------------------------------ from text to token ids


def render(tokenizer: Any, turn: str | Turn, thinking: bool = True, history: Sequence[Message] = ()) -> list[int]:
    """Token ids of a conversation up to where the assistant begins to write; a plain text is data.

    `turn` is the user's last turn, and `history` the messages before it, all of them data. The pieces are encoded one
    by one, so the ids of the project's own words do not depend on the data between them: prompts with a correct and
    with a wrong hint differ in the ids of the hint alone.

    Raises:
        InputError: the model's chat template cannot be rendered, or leaves out a message.
    """
    pieces = (Data(turn),) if isinstance(turn, str) else turn
    return list(_rendered(tokenizer, tokenizer.chat_template, tuple(history), pieces, thinking))


@lru_cache(maxsize=128)
def _rendered(
    tokenizer: Any, template: str, history: tuple[Message, ...], turn: Turn, thinking: bool
) -> tuple[int, ...]:
    """Remembered for a while: one hint is shown for several rollouts of its group, one after the other."""
    pieces = (*(Data(text) for _, text in history), *turn)
    slots = [_slot(place) if isinstance(piece, Data) else piece for place, piece in enumerate(pieces)]
    contents = [*slots[: len(history)], "".join(slots[len(history) :])]
    roles = [*(role for role, _ in history), "user"]
    try:
        text = tokenizer.apply_chat_template(
            [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)],
            chat_template=template,
            add_generation_prompt=True,
            tokenize=False,
            enable_thinking=thinking,
        )
    except Exception as error:  # the template is a program; whatever it raises, the model cannot be asked anything
        raise InputError(f"model: its chat template cannot be rendered ({first_line(error)})") from None
    for place, piece in enumerate(pieces):
        if isinstance(piece, Data) and _slot(place) not in text:
            role = roles[min(place, len(history))]
            lost = "the question" if role == "user" else f"what it says ({piece.text[:40]!r})"
            raise InputError(
                f"model: its chat template leaves out the {role}'s message, so the model would not see {lost}"
            )
    ids: list[int] = []
    for part in _SLOT.split(text):  # the template's words and the numbers of the slots, in turn
        piece = pieces[int(part[1:-1])] if _SLOT.fullmatch(part) else part
        ids += data_ids(tokenizer, piece.text) if isinstance(piece, Data) else _encoded(tokenizer, piece)
    return tuple(ids)


_SLOT = re.compile("(\ue000[0-9]+\ue001)")  # characters for private use: no template has them


def _slot(place: int) -> str:
    return f"\ue000{place}\ue001"


def data_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of text that is data: what spells a control token is encoded as ordinary characters."""
    controls = _controls(tokenizer, len(tokenizer))
    parts = [text]
    while controls and any(controls.search(part) for part in parts):
        parts = [piece for part in parts for piece in _cut(part, controls)]
    return [token for part in parts for token in _encoded(tokenizer, part)]


def _cut(text: str, controls: re.Pattern[str]) -> list[str]:
    """The text cut after the first character of each control token that it spells."""
    ends = [match.start() + 1 for match in controls.finditer(text)]
    return [text[start:end] for start, end in pairwise([0, *ends, len(text)])]


@lru_cache(maxsize=32)
def _controls(tokenizer: Any, size: int) -> re.Pattern[str] | None:
    """A pattern of the added tokens that are special or look like markup; `size` makes a longer vocabulary a new
    question."""
    added = tokenizer.added_tokens_decoder.values()
    contents = {
        token.content
        for token in added
        if len(token.content) > 1 and (token.special or _MARKUP.fullmatch(token.content))
    }
    ordered = sorted(contents, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None


_MARKUP = re.compile(
    r"[<\[{|].*[>\]}|]"
)  # such as <think>; runs of spaces, which are added tokens in some vocabularies, are not


def _encoded(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids) if text else []
