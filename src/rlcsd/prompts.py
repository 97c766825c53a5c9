"""What the student and the teacher are asked: chat messages, and the "Reference Solution" template.

A teacher prompt is the student's prompt with one hint behind the question. A correct and a wrong hint
stand inside byte-identical words, so that whatever those words do to style cancels in the contrast
(RLCSD, arXiv 2606.11709, section 3). The wording is this project's own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

# Each wrapper surrounds the hint; `{hint}` occurs exactly once.
TEMPLATES = {
    "neutral": "Reference Solution:\n{hint}\n\nNow give your own solution to the question above.",
    "verbose": (
        "Before you begin, here is a Reference Solution that somebody wrote for the question above. "
        "Read it carefully from beginning to end.\n\n=== Reference Solution ===\n{hint}\n=== End of Reference Solution ===\n\n"
        "Now that you have read it, solve the question above in your own words, step by step."
    ),
    "terse": "Reference Solution: {hint}\nSolve it.",
}

BOXED_INSTRUCTION = "Put the final answer in \\boxed{}."


def question_text(question: str, instruction: str = BOXED_INSTRUCTION) -> str:
    """The user's turn as the student sees it; a question that itself asks for a box keeps its own words."""
    return f"{question} {instruction}" if instruction and "\\boxed" not in question else question


def hint_text(text: str | None, answer: str) -> str:
    """The hint itself: a solution or rollout (None for the answer alone) and its final answer."""
    final = f"Correct final answer: {answer}"
    return final if not text else f"{text.strip()}\n\n{final}"


def teacher_text(question: str, hint: str, template: str = "neutral", instruction: str = BOXED_INSTRUCTION) -> str:
    """The user's turn as the teacher sees it.

    Raises:
        ValueError: `template` is not a key of TEMPLATES.
    """
    if template not in TEMPLATES:
        raise ValueError(f"unknown hint template {template!r}; known: {', '.join(TEMPLATES)}")
    before, after = TEMPLATES[template].split("{hint}")
    return f"{question_text(question, instruction)}\n\n{before}{hint}{after}"


def student_prompt(tokenizer: Any, question: str, instruction: str = BOXED_INSTRUCTION, thinking: bool = True) -> list[int]:
    """Token ids of what the student is asked."""
    return render(tokenizer, question_text(question, instruction), thinking)


def render(tokenizer: Any, user_text: str, thinking: bool = True) -> list[int]:
    """Token ids of a one-turn conversation up to where the assistant begins to write."""
    return list(_rendered(tokenizer, tokenizer.chat_template, user_text, thinking))


@lru_cache(maxsize=128)
def _rendered(tokenizer: Any, template: str, user_text: str, thinking: bool) -> tuple[int, ...]:
    """Remembered for a while: one hint is shown for several rollouts of its group, one after the other."""
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": user_text}],
        chat_template=template,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
        enable_thinking=thinking,
    )
    return tuple(ids)
