"""The one exception for anything wrong with what the user gave, and the nearest valid name to suggest."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any


class InputError(ValueError):
    """One clear sentence: the field, its value, and what would be right; of a config, one line for each mistake.

    The CLI exits with code 2.

    >>> import rlcsd
    >>> try:
    ...     rlcsd.load_config(["stpes=20"])
    ... except rlcsd.InputError as error:
    ...     print(error)
    stpes: unknown key; did you mean 'steps'?
    """


class MissingError(InputError):
    """Something that a run needs is not on this machine yet; each sentence names one thing and says how to get it."""

    def __init__(self, *sentences: str) -> None:
        super().__init__("; ".join(sentences))
        self.sentences = sentences


class OutOfMemoryError(InputError):
    """Memory ran out. `phase` is what ran (empty if it is not known yet), `override` a `key=value` for the resumption.

    The policy is that of the last finished update, unless the phase is `optimizer step`.
    """

    def __init__(self, sentence: str, phase: str = "", override: str | None = None) -> None:
        super().__init__(sentence)
        self.phase, self.override = phase, override


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, of any library, means that the memory of the host or of a device was too small."""
    if isinstance(error, MemoryError | OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError | OSError) and any(
        words in text
        for words in ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
    )


def together(*steps: Callable[[], Any]) -> list[Any]:
    """The results of all steps. What they miss is reported in one error, not one thing after another.

    Raises:
        MissingError: with all sentences of all steps that raised one. Any other error is raised when it comes.
    """
    found, sentences = [], list[str]()
    for step in steps:
        try:
            found.append(step())
        except MissingError as error:
            sentences += error.sentences
    if sentences:
        raise MissingError(*sentences)
    return found


def first_line(error: Exception) -> str:
    """What an error of a library says first, or its type if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def suggestion(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """`did you mean 'x'?` for the name nearest to `name`; if none is near `otherwise`, by default all names."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else otherwise or f"known: {', '.join(known)}"
