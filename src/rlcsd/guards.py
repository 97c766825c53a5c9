"""Guards against divergence: what they watch, and when a step is skipped or the run is stopped."""

from __future__ import annotations

import math
from collections.abc import Mapping

from .config.schema import GuardConfig
from .errors import InputError


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
