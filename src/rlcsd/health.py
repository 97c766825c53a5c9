"""The health of a run: divergence that skips a step or stops the run, and steps that did not change the policy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .config.schema import GuardConfig
from .errors import InputError
from .methods.base import Method
from .prompts import end_of_turn_ids
from .records import Group


class Guards:
    """Checks each step twice: its rollouts before the update, and the update's outcome.

    A finding becomes a warning. With `guard.policy=skip` the step's update is left out, and the run stops after
    `guard.patience` such steps in a row; with `stop` it stops at once. Weights that are not finite, or that have grown
    beyond `guard.weight_growth`, always stop the run. A stop raises before anything is saved, so the newest checkpoint
    has sound weights.
    """

    def __init__(self, config: GuardConfig) -> None:
        self.config = config
        self.steps_without_reward = 0
        self.findings_in_a_row = 0

    def before_update(self, metrics: Mapping[str, float]) -> list[str]:
        """What is wrong with a step's rollouts, one phrase each; `metrics` has reward, length and entropy."""
        findings = []
        for name, band, key in (
            ("actor/entropy", self.config.entropy, "guard.entropy"),
            ("rollout/length", self.config.length, "guard.length"),
        ):
            value = metrics.get(name)
            if value is not None and not math.isfinite(value):
                findings.append(f"{name} is not finite")
            elif value is not None and band is not None and not band[0] <= value <= band[1]:
                findings.append(f"{name}={value:.4g} is outside {key}=[{band[0]:g}, {band[1]:g}]")
        rewarded = metrics["rollout/reward"] > 0 or metrics.get("rollout/accuracy", 0.0) > 0
        self.steps_without_reward = 0 if rewarded else self.steps_without_reward + 1
        limit = self.config.no_reward_steps
        if limit and self.steps_without_reward >= limit:
            findings.append(
                f"no rollout has had a reward for {self.steps_without_reward} steps (guard.no_reward_steps={limit})"
            )
        return findings

    def after_update(self, metrics: Mapping[str, float]) -> list[str]:
        """What is wrong with a step's updates. Raises InputError if the weights are lost."""
        growth = metrics.get("actor/weight_growth", 1.0)
        if not growth <= self.config.weight_growth:
            raise InputError(
                f"the weights have become {growth:.3g} times as large as at the start "
                f"(guard.weight_growth={self.config.weight_growth:g}); lower learning_rate"
            )
        skipped = int(metrics.get("update/skipped", 0))
        return [f"{skipped} updates had a loss or gradient that is not finite"] if skipped else []

    def decide(self, findings: list[str]) -> None:
        """Count a step with or without findings. Raises InputError if the run must stop."""
        self.findings_in_a_row = self.findings_in_a_row + 1 if findings else 0
        if findings and (self.config.policy == "stop" or self.findings_in_a_row >= self.config.patience):
            steps = f" ({self.findings_in_a_row} steps in a row)" if self.findings_in_a_row > 1 else ""
            raise InputError(f"{'; '.join(findings)}{steps}; the run has diverged: lower learning_rate, or see `guard`")


STALL_PATIENCE = 3  # steps in a row without an update, after which the explanation ends in advice


class StallCounter:
    """Counts steps in a row that did not change the policy, and explains each of them."""

    def __init__(self) -> None:
        self.in_a_row = 0

    def after_step(self, groups: Sequence[Group], metrics: Mapping[str, float], method: Method) -> str | None:
        """Why the step changed no weight, from its groups and its logged metrics; None if it changed some."""
        updates = metrics["update/count"] - metrics.get("update/skipped", 0) - metrics.get("update/empty", 0)
        self.in_a_row = 0 if updates > 0 else self.in_a_row + 1
        if updates > 0:
            return None
        reason, advice = _explain(groups, metrics, method)
        if self.in_a_row < STALL_PATIENCE:
            return reason
        return f"{reason}. That was step {self.in_a_row} in a row without one: {advice}"


class Health:
    """Guards and stall counter of a run. `state` is saved with a checkpoint, so that a resumed run goes on counting."""

    def __init__(self, config: GuardConfig) -> None:
        self.guards = Guards(config)
        self.stall = StallCounter()
        self._truncation_reported = False

    def truncation(self, metrics: Mapping[str, float], max_tokens: int, tokenizer: Any) -> list[str]:
        """A warning, once, if every response of a step reached the token limit."""
        if self._truncation_reported or metrics.get("rollout/truncated", 0.0) < 1.0:
            return []
        self._truncation_reported = True
        ids = dict.fromkeys([tokenizer.eos_token_id, *end_of_turn_ids(tokenizer)])
        ends = " or ".join(str(tokenizer.convert_ids_to_tokens(token)) for token in ids if token is not None)
        return [
            f"every response was cut off at sampling.max_tokens={max_tokens}; raise it, or look at a response: one "
            f"ends with {ends or 'no token that is known'}, as the tokenizer and the chat template say"
        ]

    def state(self) -> dict[str, int]:
        """The counters, as plain numbers."""
        return {
            "steps_without_reward": self.guards.steps_without_reward,
            "findings_in_a_row": self.guards.findings_in_a_row,
            "steps_without_update": self.stall.in_a_row,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` gave; counters that are missing (older checkpoints) start at 0."""
        self.guards.steps_without_reward = int(state.get("steps_without_reward", 0))
        self.guards.findings_in_a_row = int(state.get("findings_in_a_row", 0))
        self.stall.in_a_row = int(state.get("steps_without_update", 0))


# ------------------------------------------------------------------ why a step changed no weight


def _explain(groups: Sequence[Group], metrics: Mapping[str, float], method: Method) -> tuple[str, str]:
    """The reason, and what to change if it persists."""
    if metrics.get("guard/skipped"):
        return "its rollouts look wrong (guard)", "lower learning_rate, or widen the bands of `guard`"
    if metrics["update/count"] and metrics.get("update/skipped", 0) >= metrics["update/count"]:
        return "no gradient was finite", "lower learning_rate, or set model.dtype=float32"
    if not any(any(group.advantages) for group in groups):
        return _all_alike(groups, metrics)
    if method.hinted and not metrics.get("hints/usable_share"):
        lacking = sum(value for name, value in metrics.items() if name.startswith("hints/without_"))
        return _no_room(metrics) if metrics.get("hints/no_room", 0) > lacking else _no_hints(metrics)
    if metrics.get("hints/no_room") and not metrics["update/count"]:
        return _no_room(metrics)
    return (
        f"method={method.config.name} gives no token a weight",
        "raise group_size, so that more groups hold both right and wrong rollouts",
    )


def _all_alike(groups: Sequence[Group], metrics: Mapping[str, float]) -> tuple[str, str]:
    """Within each group all rollouts have the same reward, so no rollout has an advantage."""
    right = sum(len(group.correct_indices) == len(group.rollouts) for group in groups)
    wrong = sum(len(group.wrong_indices) == len(group.rollouts) for group in groups)
    counts = [f"all right in {right}"] * bool(right) + [f"all wrong in {wrong}"] * bool(wrong)
    counted = f" ({' and '.join(counts)} of {len(groups)})" if counts else ""
    reason = f"in each group all rollouts have the same reward{counted}, so none has an advantage"
    return reason, _easier(metrics) if wrong >= right else "take harder problems, or raise sampling.temperature"


def _easier(metrics: Mapping[str, float]) -> str:
    if metrics["rollout/truncated"] > 0.5:
        return f"raise sampling.max_tokens: {metrics['rollout/truncated']:.0%} of the responses are cut off"
    if metrics["rollout/boxed"] < 0.5:
        return (
            f"look at the responses: {metrics['rollout/boxed']:.0%} hold a boxed answer; task.instruction says how to "
            "answer, and task.verifier reads it"
        )
    return "take easier problems or a stronger model.path, or raise group_size"


def _no_hints(metrics: Mapping[str, float]) -> tuple[str, str]:
    if metrics.get("hints/without_feedback"):
        count = metrics["hints/without_feedback"]
        return (
            f"the verifier gave no feedback on {count:.0f} rollouts, so the teacher has no hint",
            "let the verifier return rlcsd.Verdict(…, feedback=…), or choose another method.hint_source",
        )
    lacking = [
        f"{metrics[f'hints/without_{pool}']:.0f} rollouts lack a {pool} hint"
        for pool in ("correct", "wrong")
        if metrics.get(f"hints/without_{pool}")
    ]
    return (
        f"no rollout has the hints that its teacher needs ({', '.join(lacking)})",
        "raise group_size, so that groups hold siblings of both kinds; method.unusable=plain updates on rollouts "
        "without hints too",
    )


def _no_room(metrics: Mapping[str, float]) -> tuple[str, str]:
    return (
        f"{metrics['hints/no_room']:.0f} rollouts leave no room for a hint in the teacher's prompt",
        "raise max_teacher_tokens, or lower sampling.max_tokens",
    )
