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
from .stages.hint import may_be_wrong_hint


class DivergedError(InputError):
    """A guard stopped the run: its weights are not worth a checkpoint."""


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
            raise DivergedError(
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
            raise DivergedError(
                f"{'; '.join(findings)}{steps}; the run has diverged: lower learning_rate, or see `guard`"
            )


STALL_PATIENCE = 3  # steps in a row without an update, after which the explanation ends in advice


_SAID = (1, STALL_PATIENCE)  # steps in a row after which a lasting state is named


def _again(in_a_row: int) -> str:
    return f" in {in_a_row} steps in a row" if in_a_row > 1 else ""


def made_updates(metrics: Mapping[str, float]) -> float:
    """The optimizer steps of a training step that changed a weight."""
    return metrics["update/count"] - metrics.get("update/skipped", 0) - metrics.get("update/empty", 0)


class StallCounter:
    """Counts steps in a row that did not change the policy, and explains each of them."""

    def __init__(self) -> None:
        self.in_a_row = 0

    def after_step(
        self, groups: Sequence[Group], metrics: Mapping[str, float], method: Method, by_text: bool = False
    ) -> str | None:
        """Why the step changed no weight, from its groups and its logged metrics; None if it changed some.

        `by_text`: a wrong response needs no answer that can be read (`Task.hints_by_text`).
        """
        updates = made_updates(metrics)
        self.in_a_row = 0 if updates > 0 else self.in_a_row + 1
        if updates > 0:
            return None
        reason, advice = _explain(groups, metrics, method, by_text)
        if self.in_a_row < STALL_PATIENCE:
            return reason
        return f"{reason}. That was step {self.in_a_row} in a row without one: {advice}"


class Health:
    """Guards and stall counter of a run. `state` is saved with a checkpoint, so that a resumed run goes on counting."""

    def __init__(self, config: GuardConfig) -> None:
        self.guards = Guards(config)
        self.stall = StallCounter()
        self._truncation_reported = self._unreadable_reported = False
        self.steps_without_hints = self.steps_without_advantage = 0

    def advantages(
        self, groups: Sequence[Group], metrics: Mapping[str, float], method: Method, by_text: bool = False
    ) -> list[str]:
        """A warning about updates in which no rollout had an advantage: regularisers alone have moved the weights.

        In the first such step, and in the third in a row. Methods that distil learn without advantages.
        """
        alike = method.uses_advantage == "always" and _no_advantage(groups)
        if not alike or made_updates(metrics) <= 0:
            self.steps_without_advantage = 0
            return []
        self.steps_without_advantage += 1
        if self.steps_without_advantage not in _SAID:
            return []
        reason, advice = _all_alike(groups, metrics, by_text)
        again = _again(self.steps_without_advantage)
        return [f"{reason}; kl_coefficient and entropy_coefficient alone moved the weights{again}: {advice}"]

    def verifier(self, groups: Sequence[Group]) -> list[str]:
        """A warning about the responses of a step on which the verifier failed and which count as wrong."""
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        failed = [rollout.verdict.error for rollout in rollouts if rollout.verdict.error is not None]
        if not failed:
            return []
        counted = f"{len(failed)} of {len(rollouts)} responses, which count as wrong"
        return [f"the verifier failed on {counted}; for example: {failed[0]}"]

    def hints(
        self, groups: Sequence[Group], metrics: Mapping[str, float], method: Method, by_text: bool = False
    ) -> list[str]:
        """Warnings about a step in which no rollout had a usable hint, from its groups and its logged metrics.

        Once, that hints cannot come from such responses. In the first such step and in the third in a row, that the
        update was without a teacher (`method.unusable=plain`): the run would be GRPO under another name.
        """
        if not method.hinted or metrics.get("hints/usable_share", 1.0) > 0:
            self.steps_without_hints = 0
            return []
        self.steps_without_hints += 1
        found, unreadable = [], _unreadable(groups, method, by_text)
        plain = method.config.unusable == "plain" and self.steps_without_hints in _SAID
        if unreadable is not None and not self._unreadable_reported:
            self._unreadable_reported = True
            if not plain:  # it is the reason given below
                found.append(": ".join(unreadable))
        if plain:
            reason, advice = _no_hints(groups, metrics, method, by_text)
            again = _again(self.steps_without_hints)
            found.append(
                f"{reason}; with method.unusable=plain the update{again} was that of plain advantages, as in grpo: "
                f"{advice}"
            )
        return found

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
            "steps_without_hints": self.steps_without_hints,
            "steps_without_advantage": self.steps_without_advantage,
            "truncation_reported": int(self._truncation_reported),
            "unreadable_reported": int(self._unreadable_reported),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` gave; counters that are missing (older checkpoints) start at 0."""
        self.guards.steps_without_reward = int(state.get("steps_without_reward", 0))
        self.guards.findings_in_a_row = int(state.get("findings_in_a_row", 0))
        self.stall.in_a_row = int(state.get("steps_without_update", 0))
        self.steps_without_hints = int(state.get("steps_without_hints", 0))
        self.steps_without_advantage = int(state.get("steps_without_advantage", 0))
        self._truncation_reported = bool(state.get("truncation_reported", False))
        self._unreadable_reported = bool(state.get("unreadable_reported", False))


# ------------------------------------------------------------------ why a step changed no weight


def _explain(groups: Sequence[Group], metrics: Mapping[str, float], method: Method, by_text: bool) -> tuple[str, str]:
    """The reason, and what to change if it persists."""
    if metrics.get("guard/skipped"):
        return "its rollouts look wrong (guard)", "lower learning_rate, or widen the bands of `guard`"
    if metrics["update/count"] and metrics.get("update/skipped", 0) >= metrics["update/count"]:
        return "no gradient was finite", "lower learning_rate, or set model.dtype=float32"
    if _no_advantage(groups) and method.uses_advantage == "always":
        return _all_alike(groups, metrics, by_text)
    if metrics.get("correction/rejected", 0.0) >= 1:
        return (
            "each rollout is outside the band of rollout_rejection",
            "widen it; where sampling.top_p or top_k truncate, sampling_mask=true takes the kept mass out of the ratio",
        )
    if method.hinted and not metrics.get("hints/usable_share"):
        lacking = sum(value for name, value in metrics.items() if name.startswith("hints/without_"))
        return (
            _no_room(metrics)
            if metrics.get("hints/no_room", 0) > lacking
            else _no_hints(groups, metrics, method, by_text)
        )
    if metrics.get("hints/no_room") and not metrics["update/count"]:
        return _no_room(metrics)
    return (
        f"method={method.config.name} gives no token a weight",
        "raise group_size, so that more groups hold both right and wrong rollouts",
    )


def _no_advantage(groups: Sequence[Group]) -> bool:
    return not any(any(group.advantages) for group in groups)


def _all_alike(groups: Sequence[Group], metrics: Mapping[str, float], by_text: bool) -> tuple[str, str]:
    """Within each group all rollouts have the same reward, so no rollout has an advantage."""
    right = sum(len(group.correct_indices) == len(group.rollouts) for group in groups)
    wrong = sum(len(group.wrong_indices) == len(group.rollouts) for group in groups)
    counts = [f"all right in {right}"] * bool(right) + [f"all wrong in {wrong}"] * bool(wrong)
    counted = f" ({' and '.join(counts)} of {len(groups)})" if counts else ""
    reason = f"in each group all rollouts have the same reward{counted}, so none has an advantage"
    harder = "take harder problems, or raise sampling.temperature"
    return reason, _easier(metrics, by_text) if wrong >= right else harder


def _easier(metrics: Mapping[str, float], by_text: bool) -> str:
    if metrics["rollout/truncated"] > 0.5:
        return f"raise sampling.max_tokens: {metrics['rollout/truncated']:.0%} of the responses are cut off"
    if metrics["rollout/answered"] < 0.5 and not by_text:
        return (
            f"look at the responses: in {metrics['rollout/answered']:.0%} an answer can be read; task.instruction says "
            "how to answer, and task.verifier reads it"
        )
    return "take easier problems or a stronger model.path, or raise group_size"


def _no_hints(groups: Sequence[Group], metrics: Mapping[str, float], method: Method, by_text: bool) -> tuple[str, str]:
    if metrics.get("hints/without_feedback"):
        count = metrics["hints/without_feedback"]
        return (
            f"the verifier gave no feedback on {count:.0f} rollouts, so the teacher has no hint",
            "let the verifier return rlcsd.Verdict(…, feedback=…), or choose another method.hint_source",
        )
    if unreadable := _unreadable(groups, method, by_text):
        return unreadable
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    best = max(rollout.reward for rollout in rollouts)
    if best > 0 and not any(rollout.is_correct for rollout in rollouts):
        return (
            f"no response is correct, so none can be the correct hint; the best reward is {best:g}",
            "task.success is the least number that is correct (by default 1); or take easier problems",
        )
    lacking = [
        f"{metrics[f'hints/without_{pool}']:.0f} rollouts lack a {pool} hint"
        for pool in ("correct", "wrong")
        if metrics.get(f"hints/without_{pool}")
    ]
    return (
        f"no rollout has the hints that its teacher needs ({', '.join(lacking)})",
        f"raise group_size, so that groups hold {'siblings of both kinds' if method.needs_contrast else 'correct ones'}"
        + ("; method.unusable=plain updates on rollouts without hints too" if method.config.has_plain_path() else ""),
    )


def _unreadable(groups: Sequence[Group], method: Method, by_text: bool) -> tuple[str, str] | None:
    """That no wrong response of a step can be a hint, and what to change; None if one can, or none is needed."""
    wrong = [rollout for group in groups for rollout in group.rollouts if not rollout.is_correct]
    source = getattr(method.config, "hint_source", "")
    if not method.needs_contrast or not wrong or any(may_be_wrong_hint(one, by_text, source) for one in wrong):
        return None
    needed = f"so none can be the wrong hint that method={method.config.name} needs"
    if by_text:
        return (
            f"each of the {len(wrong)} wrong responses is empty or was cut off, {needed}",
            "raise sampling.max_tokens, or look at the responses",
        )
    cut = sum(not rollout.sample.finished for rollout in wrong)
    if cut > len(wrong) / 2:
        return (
            f"no answer can be read in any of the {len(wrong)} wrong responses, {needed}; {cut} of them were cut off",
            "raise sampling.max_tokens",
        )
    return (
        f"no answer can be read in any of the {len(wrong)} wrong responses, {needed}",
        "answers are read from \\boxed{}, or as the task says: Task(answer_of=…), or a verifier that returns "
        "rlcsd.Verdict(…, answer=…); task.instruction tells the model how to answer",
    )


def _no_room(metrics: Mapping[str, float]) -> tuple[str, str]:
    return (
        f"{metrics['hints/no_room']:.0f} rollouts leave no room for a hint in the teacher's prompt",
        "raise max_teacher_tokens, or lower sampling.max_tokens",
    )
