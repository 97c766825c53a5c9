"""Prompts of the student and of the teacher: chat messages, the "Reference Solution" template, and their token ids.

A teacher's prompt is the student's prompt with one hint after the question. Correct and wrong hints stand within
identical words, so that the effect of those words on style cancels in the contrast (RLCSD, arXiv 2606.11709,
section 3). The wording is this project's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
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
    "bare": "{hint}",
}

# The same for a verifier's feedback on the rollout that the teacher scores.
FEEDBACK_TEMPLATES = {
    "neutral": "Feedback on an earlier attempt:\n{hint}\n\nNow give your own solution to the question above.",
    "verbose": (
        "Before you begin, here is the feedback that an earlier attempt at the question above was given. Read it "
        "carefully from beginning to end.\n\n=== Feedback on the Attempt ===\n{hint}\n=== End of Feedback ===\n\n"
        "Now that you have read it, solve the question above in your own words, step by step."
    ),
    "terse": "Feedback on an attempt: {hint}\nSolve it.",
    "bare": "{hint}",
}

BOXED_INSTRUCTION = "Put the final answer in \\boxed{}."


def question_text(question: str, instruction: str = BOXED_INSTRUCTION, history: Sequence[Message] = ()) -> str:
    """The user's turn as the student sees it; without the instruction if the conversation already asks for a box."""
    texts = [question, *(text for role, text in history if role != "assistant")]
    has_instruction = any("\\boxed" in text for text in texts)
    return question if has_instruction or not instruction else f"{question} {instruction}"


def hint_text(text: str | None, answer: str) -> str:
    """The text of a hint: a solution or rollout (None: the answer alone), and its final answer ("": the text alone)."""
    if not answer:
        return (text or "").strip()
    final = f"Correct final answer: {answer}"
    return final if not text else f"{text.strip()}\n\n{final}"


def teacher_text(
    question: str,
    hint: str,
    template: str = "neutral",
    instruction: str = BOXED_INSTRUCTION,
    history: Sequence[Message] = (),
    feedback: bool = False,
) -> str:
    """The user's turn as the teacher sees it; with `feedback` the hint is a verifier's feedback instead of a solution.

    Raises:
        ValueError: `template` is not a key of TEMPLATES.
    """
    if template not in TEMPLATES:
        raise ValueError(f"unknown hint template {template!r}; known: {', '.join(TEMPLATES)}")
    before, after = (FEEDBACK_TEMPLATES if feedback else TEMPLATES)[template].split("{hint}")
    return f"{question_text(question, instruction, history)}\n\n{before}{hint}{after}"


def student_prompt(
    tokenizer: Any, problem: Problem | str, instruction: str = BOXED_INSTRUCTION, thinking: bool = True
) -> list[int]:
    """Token ids of the student's prompt for a problem, or for a question alone."""
    problem = Problem(problem, "") if isinstance(problem, str) else problem
    return render(tokenizer, question_text(problem.question, instruction, problem.history), thinking, problem.history)


# ------------------------------------------------------------------ from messages to token ids


def render(tokenizer: Any, content: str, thinking: bool = True, history: Sequence[Message] = ()) -> list[int]:
    """Token ids of a conversation up to where the assistant begins to write.

    `content` is the user's last message, `history` the messages before it. The ids are those of
    `tokenizer.apply_chat_template`, with one exception: text within a message that spells a control token, such as
    `<|im_end|>`, is encoded as ordinary characters.

    Raises:
        InputError: the model's chat template cannot be rendered, or leaves out a message.
    """
    messages = (*history, ("user", content))
    return list(_rendered(tokenizer, tokenizer.chat_template, messages, thinking))


@lru_cache(maxsize=128)  # one hint is shown for several rollouts of its group, one after the other
def _rendered(tokenizer: Any, template: str, messages: tuple[Message, ...], thinking: bool) -> tuple[int, ...]:
    roles = tuple(role for role, _ in messages)
    _check_complete(tokenizer, template, roles, thinking)

    def applied(contents: Sequence[str]) -> str:
        return _applied(tokenizer, template, roles, contents, thinking)

    contents = [content for _, content in messages]
    spelled = _mark_control_text(contents, control_tokens(tokenizer), applied)
    parts = _MARK.split(applied(contents)) if spelled else [applied(contents)]
    ids = _encoded(tokenizer, parts[0])
    for index, rest in zip(parts[1::2], parts[2::2], strict=True):
        ids += data_ids(tokenizer, spelled[int(index)], inside=True)
        ids += _encoded(tokenizer, rest, inside=True)
    return tuple(ids)


def _mark_control_text(
    contents: list[str], controls: Controls | None, applied: Callable[[Sequence[str]], str]
) -> list[str]:
    """Replace what would become a control token by numbered marks, in place; returns what the marks stand for.

    A message that spells control tokens stays as it is if the template removes them, as some do with the reasoning of
    earlier turns: its rendering then holds the same control tokens as with marks in their place.
    """
    spelled: list[str] = []
    suspects = [index for index, content in enumerate(contents) if controls and controls.may_appear(content)]
    if not suspects or controls is None:
        return spelled
    marked = list(contents)
    for index in suspects:
        marked[index] = _marked(contents[index], controls, [])
    own = controls.pattern.findall(applied(marked))
    for index in suspects:
        alone = [*marked[:index], contents[index], *marked[index + 1 :]]
        if controls.pattern.findall(applied(alone)) != own:
            contents[index] = _marked(contents[index], controls, spelled)
    return spelled


_MARK = re.compile("\ue000([0-9]+)\ue001")  # private-use characters, which no template has


def _marked(content: str, controls: Controls, spelled: list[str]) -> str:
    """The content with a mark for each control token, and for an end that could be a part of one."""

    def mark(match: re.Match[str]) -> str:
        spelled.append(match[0])
        return f"\ue000{len(spelled) - 1}\ue001"

    ends = r"^\s*\S|\S\s*$" if controls.may_cross(content) else ""
    patterns = [controls.pattern.pattern, "[\ue000\ue001]", *filter(None, [ends])]
    return re.sub("|".join(patterns), mark, content)


@lru_cache(maxsize=32)
def _check_complete(tokenizer: Any, template: str, roles: tuple[str, ...], thinking: bool) -> None:
    """Raise InputError if the template leaves out a message."""
    probes = [f"message{index}probe" for index in range(len(roles))]
    text = _applied(tokenizer, template, roles, probes, thinking)
    for role, probe in zip(roles, probes, strict=True):
        if probe not in text:
            missing = "the question" if role == "user" else "its content"
            raise InputError(
                f"model: its chat template leaves out the {role}'s message, so the model would not see {missing}"
            )


def _applied(
    tokenizer: Any, template: str, roles: Sequence[str], contents: Sequence[str], thinking: bool, **options: Any
) -> str:
    try:
        return str(
            tokenizer.apply_chat_template(
                [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)],
                chat_template=template,
                tokenize=False,
                enable_thinking=thinking,
                **{"add_generation_prompt": True, **options},
            )
        )
    except Exception as error:  # the template is a program, which may raise anything
        raise InputError(f"model: its chat template cannot be rendered ({first_line(error)})") from None


def data_ids(tokenizer: Any, text: str, inside: bool = False) -> list[int]:
    """Token ids of text that is data: what spells a control token is encoded as ordinary characters.

    `inside`: other text stands before it, so a tokenizer that marks the start of a text (SentencePiece) must not.
    """
    controls = control_tokens(tokenizer)
    parts = [text]
    while controls and any(controls.pattern.search(part) for part in parts):
        parts = [piece for part in parts for piece in _cut(part, controls.pattern)]
    return [
        token for index, part in enumerate(parts) for token in _encoded(tokenizer, part, inside=inside or index > 0)
    ]


def _cut(text: str, controls: re.Pattern[str]) -> list[str]:
    """The text cut after the first character of each control token that it spells."""
    ends = [match.start() + 1 for match in controls.finditer(text)]
    return [text[start:end] for start, end in pairwise([0, *ends, len(text)])]


@dataclass(frozen=True)
class Controls:
    """The control tokens of a tokenizer: added tokens that are special or look like markup."""

    names: tuple[str, ...]

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(re.escape(name) for name in sorted(self.names, key=len, reverse=True)))

    @cached_property
    def _edges(self) -> tuple[set[str], set[str]]:
        cuts = [(name[:cut], name[cut:]) for name in self.names for cut in range(1, len(name))]
        return {start for start, _ in cuts}, {end for _, end in cuts}

    def may_appear(self, text: str) -> bool:
        """Does the text spell a control token, or could it together with what stands around it?"""
        return self.pattern.search(text) is not None or self.may_cross(text)

    def may_cross(self, text: str) -> bool:
        """Could what stands before or after the text complete a control token at its start or end?"""
        starts, ends = self._edges
        text = text.strip()
        widths = range(1, min(len(text), max(map(len, self.names))) + 1)
        return any(text[-width:] in starts or text[:width] in ends for width in widths)


def control_tokens(tokenizer: Any) -> Controls | None:
    """The tokenizer's control tokens, None if it has none."""
    return _controls(tokenizer, len(tokenizer))


@lru_cache(maxsize=32)
def _controls(tokenizer: Any, size: int) -> Controls | None:
    """`size` is a key of the cache, since a vocabulary may grow."""
    names = {
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if len(token.content) > 1 and (token.special or _MARKUP.fullmatch(token.content))
    }
    return Controls(tuple(sorted(names))) if names else None


# Such as <think>. Runs of spaces, which are added tokens in some vocabularies, are no control tokens.
_MARKUP = re.compile(r"[<\[{|].*[>\]}|]")


def _encoded(tokenizer: Any, text: str, inside: bool = False) -> list[int]:
    if not text:
        return []
    if inside:  # encoded after a line break, whose ids are taken away again
        before = _encoded(tokenizer, "\n")
        ids = _encoded(tokenizer, f"\n{text}")
        if ids[: len(before)] == before:
            return ids[len(before) :]
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def end_of_turn_ids(tokenizer: Any) -> list[int]:
    """Ids of the control token with which the chat template ends an assistant's turn, as a list of one; else empty.

    Base models often name another end in their tokenizer and generation config than their template writes.
    """
    probe = "assistantprobe"
    if not getattr(tokenizer, "chat_template", None):
        return []
    try:
        text = _applied(
            tokenizer, tokenizer.chat_template, ["user", "assistant"], ["x", probe], True, add_generation_prompt=False
        )
    except InputError:
        return []
    controls = control_tokens(tokenizer)
    _, found, after = text.rpartition(probe)
    match = controls.pattern.match(after.lstrip()) if found and controls else None
    return [tokenizer.convert_tokens_to_ids(match[0])] if match else []


def check_rendering(tokenizer: Any, thinking: bool = True) -> None:
    """Raise InputError if this tokenizer's prompts are not those of its chat template, or data can become control.

    Called once before a run. The messages try what templates and tokenizers treat specially.
    """
    samples = ("Who is what?", " 1 + 1\n", "x <y> [z]", "é漢😀\n\n - a", "a" * 40)
    for content in samples:
        rendered = render(tokenizer, content, thinking)  # raises InputError for a template that cannot be rendered
        expected = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
            enable_thinking=thinking,
        )
        if rendered != list(expected):
            raise InputError(
                f"model: the prompt {content!r} has other token ids than its chat template gives; "
                "set model.chat_template to a template that this tokenizer encodes as it is written"
            )
    controls = control_tokens(tokenizer)
    if controls is None:
        return
    added = set(tokenizer.added_tokens_decoder)
    plain = [token for token in render(tokenizer, "Who?", thinking) if token in added]
    for name in controls.names[:64]:
        if [token for token in render(tokenizer, f"a {name} b", thinking) if token in added] != plain:
            raise InputError(
                f"model: its tokenizer reads {name!r} within a question as a control token; use the fast tokenizer "
                "of this model"
            )
