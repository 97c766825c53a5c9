"""The studies: which arms, on which settings, with which seeds. docs/study.md tells what they ask."""

from __future__ import annotations

from runner import Arm, Study

_ROLL_CALL = ("task=roll_call", "steps=30", "evaluation.sampling.max_tokens=120")
# Made by `rlcsd warmstart roll_call_worked --out bases/roll_call_worked`.
_WORKED = (*_ROLL_CALL, "model.path=bases/roll_call_worked", "task.worked=1.0")


def _method(name: str, *overrides: str, label: str = "") -> Arm:
    return Arm(label or name, (f"method={name}", *overrides))


def _rlcsd(label: str, *overrides: str, oracle: str | None = None) -> Arm:
    return Arm(label, ("method=rlcsd", *overrides), oracle)


# variant=authors changes the learning rate, the batch or the length limit of some methods as well. Those belong to
# models of billions of parameters, so this study takes from it what concerns the method, and the rest is as for all.
_AUTHORS = (
    _method("sdpo", "method.hint_source=own_rollout", "method.advantage_std=false", label="sdpo-authors"),
    _method("rlsd", "method.hint_source=answer_only", "method.reduction=sequence", label="rlsd-authors"),
    _method("srpo", "method.route=reward", label="srpo-authors"),
    _method("grpo", "method.reduction=sequence", "prompts_per_update=8", label="grpo-authors"),
    _method("rlcsd", "method.path_norm=rollout", label="rlcsd-authors"),
)
_EIGHT = ("sdpo", "grpo", "rlcsd", "opsd", "rlsd", "srpo", "opsd_ectr", "rlsd_ectr")
_BOUND = dict.fromkeys(("opsd", "opsd_ectr"), ("grad_norm=0.1",))  # as published; the task sets it alike for all
_FRESH = tuple(range(201, 211))

DRIFT = Study(
    "drift",
    (*_ROLL_CALL, "model=tiny_roll_call", "kl_coefficient=0"),
    (*(_method(name, *_BOUND.get(name, ())) for name in _EIGHT), *_AUTHORS),
    _FRESH,
    test=400,
)

# The learning rate of each method: three candidates on the validation split, two seeds that the study does not use.
RATES = Study(
    "rates",
    (*DRIFT.common, "task.eval_split=val"),
    tuple(
        Arm(f"{arm.name}@{rate}", (*arm.overrides, f"learning_rate={rate}"))
        for arm in DRIFT.arms
        for rate in ("3e-5", "1e-4", "2e-4")
    ),
    (101, 102),
    test=200,
)

CREDIT = Study(
    "credit",
    (*_WORKED, "kl_coefficient=0"),
    (
        _method("grpo"),
        _rlcsd("oracle", oracle="whole"),
        _rlcsd("rlcsd"),
        _rlcsd("spares", "method.spare=0.5", "method.weight_cap=3", "method.unusable=plain"),
        _rlcsd("plain", "method.unusable=plain"),
        _rlcsd("gt_cot", "method.hint_source=gt_cot"),
        _rlcsd("capped", "method.weight_cap=3"),
        _rlcsd("one-path", "method.two_path=false", "method.tau=0.5"),
        _rlcsd("unsigned", "method.shift=false"),
        _rlcsd("spare-alone", "method.spare=0.5"),
        _rlcsd("oracle-dropped", oracle="dropped"),
        _rlcsd("oracle-unspared", oracle="unspared"),
        _rlcsd("oracle-noisy", oracle="noisy"),
        _rlcsd("oracle-capped", "method.weight_cap=3", oracle="whole"),
        _rlcsd("oracle-one-path", "method.two_path=false", oracle="whole"),
    ),
    _FRESH,
)

# Whole-answer credit against token credit as the decisions become more and the rollouts fewer.
DECISIONS = Study(
    "decisions",
    (*_WORKED, "kl_coefficient=0", "task.unseen_sizes=[]"),
    tuple(
        Arm(
            f"{method}-{speakers}-g{group}",
            (f"method={method}", f"task.train_sizes=[{speakers}]", f"group_size={group}"),
        )
        if method != "oracle"
        else Arm(
            f"oracle-{speakers}-g{group}",
            ("method=rlcsd", f"task.train_sizes=[{speakers}]", f"group_size={group}"),
            "whole",
        )
        for speakers in (2, 3, 4, 5)
        for group in (4, 8)
        for method in ("grpo", "oracle", "rlcsd")
    ),
    _FRESH,
)

# The paper's section 4.3: one method, three sources of evidence.
PLUGIN = Study(
    "plugin",
    DRIFT.common,
    (
        _method("opsd", "grad_norm=0.1", label="opsd-solution"),
        _method("opsd", "grad_norm=0.1", "method.hint_source=own_rollout", label="opsd-rollout"),
        _method("opsd_ectr", "grad_norm=0.1", label="opsd-contrast"),
        _method("rlsd", label="rlsd-solution"),
        _method("rlsd", "method.hint_source=own_rollout", label="rlsd-rollout"),
        _method("rlsd_ectr", label="rlsd-contrast"),
        _rlcsd("rlcsd-solution", "method.evidence=one_sided", "method.hint_source=gt_cot"),
        _rlcsd("rlcsd-rollout", "method.evidence=one_sided"),
        _rlcsd("rlcsd-contrast"),
    ),
    _FRESH,
    test=400,
)

STUDIES = {study.name: study for study in (DRIFT, RATES, CREDIT, DECISIONS, PLUGIN)}
