"""Steps without an update: why no weight was changed, and what to change after several in a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .methods.base import Method
from .records import Group

PATIENCE = 3  # steps in a row without an update, after which advice follows the reason


class Stall:
    """Counts steps without an update in a row."""

    def __init__(self) -> None:
        self.in_a_row = 0

    def after_step(self, groups: Sequence[Group], metrics: Mapping[str, float], method: Method) -> str | None:
        """Why the step changed no weight, from its groups and its logged metrics; None if it changed some."""
        made = metrics["update/count"] - metrics.get("update/skipped", 0) - metrics.get("update/empty", 0)
        self.in_a_row = 0 if made > 0 else self.in_a_row + 1
        if made > 0:
            return None
        reason, advice = _why(groups, metrics, method)
        if self.in_a_row < PATIENCE:
            return reason
        return f"{reason}. That was step {self.in_a_row} in a row without one: {advice}"


def _why(groups: Sequence[Group], m: Mapping[str, float], method: Method) -> tuple[str, str]:
    """The reason, and what to change if it stays."""
    if m.get("guard/skipped"):
        return "its rollouts look wrong (guard)", "lower learning_rate, or widen the bands of `guard`"
    if m["update/count"] and m.get("update/skipped", 0) >= m["update/count"]:
        return "no gradient was finite", "lower learning_rate, or set model.dtype=float32"
    alike = [group for group in groups if not any(group.advantages)]
    if len(alike) == len(groups):
        return _all_alike(groups, m)
    if method.hinted and not m.get("hints/usable_share"):
        return _no_hints(m)
    if m.get("hints/no_room") and not m["update/count"]:
        return _no_room(m)
    return (
        f"method={method.config.name} gives no token a weight",
        "raise group_size, so that more groups hold both right and wrong rollouts",
    )


def _all_alike(groups: Sequence[Group], m: Mapping[str, float]) -> tuple[str, str]:
    """Within each group all rollouts have the same reward, so none has an advantage."""
    right = sum(len(group.correct_indices) == len(group.rollouts) for group in groups)
    wrong = sum(len(group.wrong_indices) == len(group.rollouts) for group in groups)
    counts = [f"all right in {right}"] * bool(right) + [f"all wrong in {wrong}"] * bool(wrong)
    told = f" ({' and '.join(counts)} of {len(groups)})" if counts else ""
    reason = f"in each group all rollouts have the same reward{told}, so none has an advantage"
    return reason, _easier(m) if wrong >= right else "take harder problems, or raise sampling.temperature"


def _easier(m: Mapping[str, float]) -> str:
    if m["rollout/truncated"] > 0.5:
        return f"raise sampling.max_tokens: {m['rollout/truncated']:.0%} of the responses are cut off"
    if m["rollout/boxed"] < 0.5:
        return (
            f"look at the responses: {m['rollout/boxed']:.0%} hold a boxed answer; task.instruction says how to "
            "answer, and task.verifier reads it"
        )
    return "take easier problems or a stronger model.path, or raise group_size"


def _no_hints(m: Mapping[str, float]) -> tuple[str, str]:
    if m.get("hints/without_feedback"):
        return (
            f"the verifier gave no feedback on {m['hints/without_feedback']:.0f} rollouts, so the teacher has no hint",
            "let the verifier return rlcsd.Verdict(…, feedback=…), or choose another method.hint_source",
        )
    lacking = [
        f"{m[f'hints/without_{pool}']:.0f} rollouts lack a {pool} hint"
        for pool in ("correct", "wrong")
        if m.get(f"hints/without_{pool}")
    ]
    return (
        f"no rollout has the hints that its teacher needs ({', '.join(lacking)})",
        "raise group_size, so that groups hold siblings of both kinds; method.unusable=plain updates on rollouts "
        "without hints too",
    )


def _no_room(m: Mapping[str, float]) -> tuple[str, str]:
    return (
        f"{m['hints/no_room']:.0f} rollouts leave no room for a hint in the teacher's prompt",
        "raise max_teacher_tokens, or lower sampling.max_tokens",
    )
