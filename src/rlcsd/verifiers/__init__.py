"""Verifiers by name; `register` adds a user's own."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, lru_cache, partial
from typing import Any

from ..errors import InputError, first_line
from ..plugins import load_attribute
from ..records import Problem, Verdict
from . import knights_and_knaves
from .boxed import last_boxed, without_thinking
from .concurrent import AsyncVerifier, BatchVerifier, is_async
from .latex import clean
from .process import IsolatedVerifier, can_fork
from .reference import Reference, label_of, reference_to, referred
from .rewards import Answer, Reward, VerifierError, WeightedRewards, as_result, as_verdict, described, form_of

# (response text, reference answer) → a bool, a finite number or a `Verdict`. One whose second parameter is called
# `problem` is given the whole problem (`form_of`), and one with a method `batch(responses, answers)` or
# `batch(responses, problems)` many at a time.
Verifier = Callable[[str, Any], Verdict | float | bool]

CONCURRENCY = 16  # responses that an `async def` verifier judges at a time, unless the task says how many

__all__ = [
    "CONCURRENCY",
    "AsyncVerifier",
    "Reward",
    "Verdict",
    "Verifier",
    "VerifierError",
    "WeightedRewards",
    "as_given",
    "ask_for_verdicts",
    "described_reference",
    "exact",
    "from_reference",
    "get",
    "grade",
    "isolated",
    "last_boxed",
    "needs_answer",
    "raise_first",
    "reading_thoughts",
    "reads_boxes",
    "reference_of",
    "register",
    "silent",
    "unmatched",
    "without_thinking",
]


def exact(response: str, answer: Any, unfinished_thoughts: bool = False) -> bool:
    """The last box holds exactly the answer, letter by letter, but for what only dresses it (`latex.clean`)."""
    boxed = last_boxed(response, unfinished_thoughts)
    return boxed is not None and (boxed == str(answer).strip() or clean(boxed) == clean(str(answer)))


@cache
def _math(unfinished_thoughts: bool) -> Verifier:
    from .math import MathVerifier

    return MathVerifier(unfinished_thoughts=unfinished_thoughts)


# Linear in the length of a response, so they need neither a process nor a limit of time.
_OURS: dict[str, Verifier] = {
    "exact": exact,
    "knights_and_knaves": knights_and_knaves.verify,
}


def _built_in(verify: Callable[..., Any]) -> Callable[..., Verifier]:
    """Makes the verifier with the option `unfinished_thoughts`."""
    return lambda unfinished_thoughts: partial(verify, unfinished_thoughts=True) if unfinished_thoughts else verify


_VERIFIERS: dict[str, Callable[..., Verifier]] = {
    **{name: _built_in(verify) for name, verify in _OURS.items()},
    "math": _math,
}


def register(name: str, verifier: Verifier) -> None:
    """Make `verifier` available to configs as `name`."""
    _VERIFIERS[name] = lambda unfinished_thoughts: verifier


def get(name: str, unfinished_thoughts: bool = False) -> Verifier:
    """The verifier called `name`, or that of a user's file, `path/to/file.py:name`.

    Args:
        name: its name.
        unfinished_thoughts: whether this package's verifiers accept a box inside a thought (`<think>`) that never ends.
            By default they do not, because a reader of the response would see no answer. A user's own verifier
            receives the whole response and decides for itself.

    Raises:
        InputError: an unknown name, a library that is not installed, or a file without such a function.
    """
    if ".py:" in name:
        return _from_file(name)
    if name not in _VERIFIERS:
        close = difflib.get_close_matches(name, _VERIFIERS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(_VERIFIERS))}"
        raise InputError(f"verifier={name}: unknown verifier; {hint}")
    return _VERIFIERS[name](unfinished_thoughts=unfinished_thoughts)


def _from_file(name: str) -> Verifier:
    attribute = load_attribute("verifier", name)
    if isinstance(attribute, type):
        try:
            attribute = _built(attribute)
        except Exception as error:
            raise InputError(f"verifier={name}: it could not be built ({first_line(error)})") from None
    if not (callable(attribute) or hasattr(attribute, "batch")):
        raise InputError(f"verifier={name}: the file has no such function (response, answer) or (response, problem)")
    return attribute


@lru_cache(maxsize=8)
def _built(verifier: type) -> Any:
    """An object of a verifier's class, which may hold a model: one for all who ask for it by its name."""
    return verifier()


def isolated(verifier: Any, seconds: float | None, processes: int | None = None, concurrency: int = CONCURRENCY) -> Any:
    """The verifier with a limit of `seconds` for a response, in `processes` processes of its own.

    Those of this package stay as they are: they take linear time, or have such processes already. An `async def`
    verifier is awaited for `concurrency` responses at a time, and one with a `batch` of its own is taken to judge as
    many at a time; both stay in this process. So do all where `seconds` is None.
    """
    if _plain(verifier) in _OURS.values() or _is_math(verifier):
        return verifier
    if hasattr(verifier, "batch"):
        return BatchVerifier(verifier, seconds, concurrency)
    if is_async(verifier):
        return AsyncVerifier(verifier, seconds, concurrency)
    return IsolatedVerifier(verifier, seconds, processes) if seconds is not None and can_fork() else verifier


def close(verifier: Any) -> None:
    """End the processes in which a user's verifier runs; the next response starts them again."""
    if isinstance(verifier, IsolatedVerifier):
        verifier.pool.close()
    elif isinstance(verifier, WeightedRewards):
        for reward in verifier.rewards:
            close(reward.verifier)


def as_given(verifier: Any) -> Any:
    """What a task was given, of the verifier that it holds: a callable outside its process, or a list of `Reward`."""
    if isinstance(verifier, IsolatedVerifier | AsyncVerifier | BatchVerifier):
        return verifier.verifier
    if isinstance(verifier, WeightedRewards):
        return [replace(reward, verifier=as_given(reward.verifier)) for reward in verifier.rewards]
    return verifier


def reading_thoughts(verifier: Any, unfinished: bool) -> Any:
    """The verifier, if it is one of this package, with its option `unfinished_thoughts`; another one as it is."""
    if _plain(verifier) in _OURS.values():
        return partial(_plain(verifier), unfinished_thoughts=True) if unfinished else _plain(verifier)
    if _is_math(verifier) and verifier.unfinished_thoughts != unfinished:
        return type(verifier)(verifier.pool.seconds, verifier.pool.processes, unfinished)
    return verifier


def needs_answer(verifier: Any) -> bool:
    """Does a verifier, or one by its name, compare with a reference answer? One whose attribute `needs_answer` is False
    judges without."""
    given = as_given(get(verifier) if isinstance(verifier, str) else verifier)
    if isinstance(given, list | tuple):
        return any(needs_answer(reward.verifier) for reward in given)
    return bool(getattr(given, "needs_answer", getattr(_plain(given), "needs_answer", True)))


def unmatched(verifier: Any, answers: Sequence[Any]) -> Any | None:
    """The first reference answer that is none as `math` needs it, alone or among rewards, if most are such; or None."""
    given = as_given(verifier)
    if not any(map(_is_math, [reward.verifier for reward in given] if isinstance(given, list) else [given])):
        return None
    from .math import is_worked_out

    wrong = [answer for answer in answers if is_worked_out(answer)]
    return wrong[0] if 2 * len(wrong) > len(answers) else None


def reads_boxes(verifier: Any) -> bool:
    """Does a verifier take the last box of a response for its answer? So do those of this package.

    An attribute `reads_boxes` of the verifier says otherwise.
    """
    given = as_given(verifier)
    if isinstance(given, list):
        return any(reads_boxes(reward.verifier) for reward in given)
    code = _plain(given) if hasattr(_plain(given), "__qualname__") else type(given)
    ours = str(getattr(code, "__module__", "")).partition(".")[0] == __package__.partition(".")[0]
    return bool(getattr(given, "reads_boxes", ours))


# ------------------------------------------------------------------ for another process


def reference_of(verifier: Any) -> Reference:
    """JSON data from which `from_reference` gives the verifier in another process.

    Raises:
        NotImportableError: it is code that cannot be imported again.
    """
    given = as_given(verifier)
    if isinstance(given, list):
        return {"rewards": [{**_weight(reward), "verifier": reference_of(reward.verifier)} for reward in given]}
    for name, function in _OURS.items():
        if _plain(given) is function:
            return {"built_in": name}
    return {"built_in": "math"} if _is_math(given) else reference_to(given)


def from_reference(reference: Reference, warn: Callable[[str], None]) -> Any:
    """The verifier of `reference_of`, as a `Task` takes it; `warn` is told if its source has changed.

    Raises:
        InputError: it cannot be imported any more.
    """
    if "rewards" in reference:
        return [Reward(**{**r, "verifier": from_reference(r["verifier"], warn)}) for r in reference["rewards"]]
    return reference["built_in"] if "built_in" in reference else referred(reference, warn)


def described_reference(reference: Reference) -> str:
    """The reference for a reader: a name, `file.py:name`, or several of them."""
    if "rewards" in reference:
        return ", ".join(described_reference(reward["verifier"]) for reward in reference["rewards"])
    return str(reference["built_in"]) if "built_in" in reference else label_of(reference)


def _weight(reward: Reward) -> dict[str, Any]:
    return {"weight": float(reward.weight), "name": reward.label, "decides": reward.decides}


def silent(verifier: Any) -> bool:
    """Is it known that the verifier never says more than right or wrong? So it is with those of this package."""
    if isinstance(verifier, WeightedRewards):
        return all(silent(reward.verifier) for reward in verifier.rewards)
    if isinstance(verifier, IsolatedVerifier | AsyncVerifier | BatchVerifier):
        return silent(verifier.verifier)
    if getattr(verifier, "silent", False):
        return True
    return _plain(verifier) in _OURS.values() or _is_math(verifier)


def _is_math(verifier: Any) -> bool:
    return type(verifier).__module__ == f"{__name__}.math"


def _plain(verifier: Any) -> Any:
    return verifier.func if isinstance(verifier, partial) else verifier


def ask(verifier: Any, responses: Sequence[str], problems: Sequence[Problem], stop: bool = True) -> list[Answer]:
    """What a verifier returned for each response, checked, or a complaint about it.

    With `stop`, the responses after the first complaint need not have been judged.
    """
    if isinstance(verifier, IsolatedVerifier):
        return verifier.ask(responses, [verifier.form.subject(problem) for problem in problems], stop)
    if isinstance(verifier, AsyncVerifier | BatchVerifier | WeightedRewards):
        return verifier.ask(responses, problems, stop)
    if hasattr(verifier, "batch"):
        return BatchVerifier(verifier, None).ask(responses, problems, stop)
    if is_async(verifier):
        return AsyncVerifier(verifier, None, CONCURRENCY).ask(responses, problems, stop)
    form = form_of(verifier)
    return [as_result(verifier, form, r, form.subject(p)) for r, p in zip(responses, problems, strict=True)]


def ask_for_verdicts(
    verifier: Any, responses: Sequence[str], problems: Sequence[Problem], success: float, stop: bool = True
) -> list[Answer]:
    """As `ask`, with verdicts: a plain number is correct from `success` on."""
    answers = ask(verifier, responses, problems, stop)
    return [(as_verdict(result, success) if complaint is None else None, complaint) for result, complaint in answers]


def grade(
    verifier: Verifier, responses: Sequence[str], problems: Sequence[Problem], success: float = 1.0
) -> list[Verdict]:
    """The verdict on each response to its problem; a plain number is correct from `success` on.

    Raises:
        VerifierError: the verifier raised, took too long, or returned something else for one of the responses.
    """
    answers = ask_for_verdicts(verifier, responses, problems, success)
    raise_first(verifier, responses, problems, answers)
    return [verdict for verdict, _ in answers]


def raise_first(
    verifier: Any, responses: Sequence[str], problems: Sequence[Problem], answers: Sequence[Answer]
) -> None:
    """Raise VerifierError for the first complaint, if there is one."""
    for response, problem, (_, complaint) in zip(responses, problems, answers, strict=True):
        if complaint is not None:
            raise VerifierError(described(verifier, response, problem, complaint), problem)
