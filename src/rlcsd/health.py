"""Guards against divergence: what they watch, and when a step is skipped or the run is stopped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .config.schema import GuardConfig
from .errors import InputError
from .methods.base import Method
from .records import Group


class Guards:
    """Checks each step twice: its rollouts before the update, and the update's outcome.

    What is wrong becomes a warning. With `guard.policy=skip` the step's update is left out, and the run stops after
    `guard.patience` such steps in a row; with `stop` it stops at once. Weights that are not finite, or that have grown
    beyond `guard.weight_growth`, cannot be skipped: they always stop the run. A stop raises before anything is saved,
    so the newest checkpoint is of sound weights.
    """

    def __init__(self, config: GuardConfig) -> None:
        self.config = config
        self.without_reward = 0
        self.in_a_row = 0

    def before_update(self, metrics: Mapping[str, float]) -> list[str]:
        """What is wrong with a step's rollouts, one phrase each; `metrics` has reward, length and entropy."""
        wrong = []
        for name, band, key in (
            ("actor/entropy", self.config.entropy, "guard.entropy"),
            ("rollout/length", self.config.length, "guard.length"),
        ):
            value = metrics.get(name)
            if value is not None and not math.isfinite(value):
                wrong.append(f"{name} is not finite")
            elif value is not None and band is not None and not band[0] <= value <= band[1]:
                wrong.append(f"{name}={value:.4g} is outside {key}=[{band[0]:g}, {band[1]:g}]")
        rewarded = metrics["rollout/reward"] > 0 or metrics.get("rollout/accuracy", 0.0) > 0
        self.without_reward = 0 if rewarded else self.without_reward + 1
        most = self.config.no_reward_steps
        if most and self.without_reward >= most:
            wrong.append(f"no rollout has had a reward for {self.without_reward} steps (guard.no_reward_steps={most})")
        return wrong

    def after_update(self, metrics: Mapping[str, float]) -> list[str]:
        """What went wrong in a step's updates. Raises InputError if the weights are lost."""
        growth = metrics.get("actor/weight_growth", 1.0)
        if not growth <= self.config.weight_growth:
            raise InputError(
                f"the weights have become {growth:.3g} times as large as at the start "
                f"(guard.weight_growth={self.config.weight_growth:g}); lower learning_rate"
            )
        skipped = int(metrics.get("update/skipped", 0))
        return [f"{skipped} updates had a loss or gradient that is not finite"] if skipped else []

    def decide(self, wrong: list[str]) -> None:
        """Count a step with or without complaints. Raises InputError if the run must stop."""
        self.in_a_row = self.in_a_row + 1 if wrong else 0
        if wrong and (self.config.policy == "stop" or self.in_a_row >= self.config.patience):
            steps = f" ({self.in_a_row} steps in a row)" if self.in_a_row > 1 else ""
            raise InputError(f"{'; '.join(wrong)}{steps}; the run has diverged: lower learning_rate, or see `guard`")


# ------------------------------------------------------------------ stall
# Steps without an update: why no weight was changed, and what to change after several in a row.

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
