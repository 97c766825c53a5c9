"""CEPO (arXiv 2605.19436), an earlier contrast: the right answer against a wrong one, both shown bare."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import HINT_SOURCE, TEACHER, UNUSABLE, TeacherKind
from .rlsd import RLSDContrast, RLSDContrastConfig


class CEPOConfig(RLSDContrastConfig):
    teacher: TeacherKind = Field("policy", description=TEACHER)
    hint_source: Literal["answer_pair", "self_rollout", "gt_cot"] = Field("answer_pair", description=HINT_SOURCE)
    exclude_self: bool = Field(False, description="a rollout is never its own hint")
    unusable: Literal["drop", "plain"] = Field("plain", description=UNUSABLE)
    epsilon_high: float | None = Field(0.28, gt=0, description="clip range above 1; null: epsilon")
    epsilon_weight: float = Field(0.5, gt=0, lt=1, description="clip range of the teacher's weight")
    lam_decay_steps: int = Field(25, ge=0, description="steps until λ reaches 0 linearly; 0 keeps it constant")


class CEPO(RLSDContrast):
    """A'_t = A ((1−λ) + λ clip(exp(sign(A) Δ_t), 1−ε_w, 1+ε_w)) with Δ_t = log π(y_t|r⁺) − log π(y_t|r⁻).

    r⁺ is the data set's answer and r⁻ that of the group's wrong rollout with the lowest reward; a space and the answer
    stand between prompt and response, without other words (`hint_source=answer_pair`). Both log-probs are the current
    policy's. λ falls from 0.5 to 0 in 25 steps; from then on the loss is GRPO's and no teacher is asked. A group
    without a wrong rollout has Δ_t = 0 (`unusable=plain`), as in the released code; the paper has RLSD's gap there.
    """

    name = "cepo"
    Config = CEPOConfig
