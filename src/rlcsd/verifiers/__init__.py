"""Verifiers by name; `register` adds a user's own."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

from ..errors import InputError, first_line
from ..plugins import load_attribute
from ..records import Problem, Verdict
from . import knights_and_knaves
from .boxed import last_boxed, without_thinking
from .latex import clean
from .process import IsolatedVerifier, can_fork
from .reference import Reference, label_of, reference_to, referred
from .rewards import Reward, VerifierError, WeightedRewards, as_result, as_verdict, checked, described, form_of, name_of

# (response text, reference answer) → a bool, a finite number or a `Verdict`. One whose second parameter is called
# `problem` is given the whole problem (`form_of`), and one with a method `batch(responses, answers)` or
# `batch(responses, problems)` many at a time.
Verifier = Callable[[str, Any], Verdict | float | bool]

__all__ = [
    "Reward",
    "Verdict",
    "Verifier",
    "VerifierError",
    "WeightedRewards",
    "exact",
    "get",
    "grade",
    "grade_groups",
    "isolated",
    "last_boxed",
    "register",
    "silent",
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


_OUR_NAMES = ("exact", "knights_and_knaves")
_OURS: tuple[Verifier, ...] = (exact, knights_and_knaves.verify)  # linear in the length of a response


def _built_in(verify: Callable[..., Any]) -> Callable[..., Verifier]:
    """Makes the verifier with the option `unfinished_thoughts`."""
    return lambda unfinished_thoughts: partial(verify, unfinished_thoughts=True) if unfinished_thoughts else verify


_VERIFIERS: dict[str, Callable[..., Verifier]] = {
    "exact": _built_in(exact),
    "knights_and_knaves": _built_in(knights_and_knaves.verify),
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
            attribute = attribute()
        except Exception as error:
            raise InputError(f"verifier={name}: it could not be built ({first_line(error)})") from None
    if not callable(attribute):
        raise InputError(f"verifier={name}: the file has no such function (response, answer) or (response, problem)")
    return attribute


def isolated(verifier: Verifier, seconds: float | None) -> Verifier:
    """The verifier in processes of its own, with a limit of `seconds` for a response.

    Those of this package stay as they are: they take linear time, or have such processes already. So do those with a
    `batch` of their own, which look after their own time, and all where `seconds` is None.
    """
    if seconds is None or _plain(verifier) in _OURS or hasattr(verifier, "batch") or not can_fork():
        return verifier
    return IsolatedVerifier(verifier, seconds)


def as_given(verifier: Any) -> Any:
    """What a task was given, of the verifier that it holds: a callable outside its process, or a list of `Reward`."""
    if isinstance(verifier, IsolatedVerifier):
        return verifier.verifier
    if isinstance(verifier, WeightedRewards):
        return [replace(reward, verifier=as_given(reward.verifier)) for reward in verifier.rewards]
    return verifier


def reading_thoughts(verifier: Any, unfinished: bool) -> Any:
    """The verifier, if it is one of this package, with its option `unfinished_thoughts`; another one as it is."""
    if _plain(verifier) in _OURS:
        return partial(_plain(verifier), unfinished_thoughts=True) if unfinished else _plain(verifier)
    if _is_math(verifier) and verifier.unfinished_thoughts != unfinished:
        return type(verifier)(verifier.pool.seconds, verifier.pool.processes, unfinished)
    return verifier


def reads_boxes(verifier: Any) -> bool:
    """Is what decides over a response one of this package's verifiers, which read its last box and nothing else?"""
    given = as_given(verifier)
    if isinstance(given, list):
        return any(reads_boxes(reward.verifier) for reward in given)
    return _plain(given) in _OURS or _is_math(given)


# ------------------------------------------------------------------ for another process


def reference_of(verifier: Any) -> Reference:
    """JSON data from which `from_reference` gives the verifier in another process.

    Raises:
        NotImportableError: it is code that cannot be imported again.
    """
    given = as_given(verifier)
    if isinstance(given, list):
        return {"rewards": [{**_weight(reward), "verifier": reference_of(reward.verifier)} for reward in given]}
    for name, function in zip(_OUR_NAMES, _OURS, strict=True):
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
    if isinstance(verifier, IsolatedVerifier):
        return silent(verifier.verifier)
    if getattr(verifier, "silent", False):
        return True
    return _plain(verifier) in _OURS or _is_math(verifier)


def _is_math(verifier: Any) -> bool:
    return type(verifier).__module__ == f"{__name__}.math"


def _plain(verifier: Any) -> Any:
    return verifier.func if isinstance(verifier, partial) else verifier


def grade(
    verifier: Verifier, responses: Sequence[str], problems: Sequence[Problem], success: float = 1.0
) -> list[Verdict]:
    """The verdict on each response to its problem; a plain number is correct from `success` on.

    Raises:
        VerifierError: the verifier raised, took too long, or returned something else for one of the responses.
    """
    if isinstance(verifier, IsolatedVerifier):
        found = verifier.ask(responses, [verifier.form.subject(problem) for problem in problems])
    elif hasattr(verifier, "batch"):
        found = [checked(result) for result in _batch(verifier, responses, problems)]
    else:
        form = form_of(verifier)
        found = [as_result(verifier, form, r, form.subject(p)) for r, p in zip(responses, problems, strict=True)]
    for response, problem, (_, complaint) in zip(responses, problems, found, strict=True):
        if complaint is not None:
            raise VerifierError(described(verifier, response, problem, complaint), problem)
    return [as_verdict(result, success) for result, _ in found]


def _batch(verifier: Any, responses: Sequence[str], problems: Sequence[Problem]) -> list[Any]:
    form = form_of(verifier.batch)
    try:
        results = list(form.call(verifier.batch, responses, [form.subject(problem) for problem in problems]))
    except InputError:
        raise
    except Exception as error:
        if len(problems) > 1:  # which of them it is
            for response, problem in zip(responses, problems, strict=True):
                _batch(verifier, [response], [problem])
        raise VerifierError(
            f"verifier {name_of(verifier)!r} raised {type(error).__name__} ({first_line(error)})",
            problems[0] if len(problems) == 1 else None,
        ) from error
    if len(results) != len(responses):
        raise VerifierError(
            f"verifier {name_of(verifier)!r} returned {len(results)} rewards for {len(responses)} responses"
        )
    return results


def grade_groups(
    verifier: Verifier, groups: Sequence[Sequence[str]], problems: Sequence[Problem], success: float = 1.0
) -> list[tuple[Verdict, ...]]:
    """The verdicts on several responses to each problem, all judged side by side."""
    flat = [problem for texts, problem in zip(groups, problems, strict=True) for _ in texts]
    verdicts = iter(grade(verifier, [text for texts in groups for text in texts], flat, success))
    return [tuple(next(verdicts) for _ in texts) for texts in groups]
