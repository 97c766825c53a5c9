"""The studies: their arms, settings and seeds, and the records of their finished runs. study.md says what they ask.

Runs of the same seed see the same problems in the same order, so arms are compared seed by seed.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

RECORDS = Path(__file__).parent / "records"  # STUDY.jsonl: one line for each arm and seed

Record = dict[str, Any]
Runs = dict[str, dict[int, Record]]  # by arm, then seed

CURVES = {  # recorded at every step: name in a record, and name of the metric
    "accuracy": "rollout/accuracy",
    "entropy": "actor/entropy",
    "length": "rollout/length",
    "worked": "style/worked",
    "interjections": "style/interjections",
    "right verdicts": "style/right_verdicts",
}


@dataclass(frozen=True)
class Arm:
    """One thing compared: config overrides, for an oracle how its labels are degraded (see oracle.py), and for a
    displaced teacher how far (see misaligned.py)."""

    name: str
    overrides: tuple[str, ...]
    oracle: str | None = None
    severity: str | None = None


@dataclass(frozen=True)
class Study:
    """Arms on common settings.

    `test` problems of each size give the accuracy after training, and with `before` also that of the base.
    """

    name: str
    common: tuple[str, ...]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    test: int = 1000
    before: bool = False

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)


def read_records(name: str) -> Runs:
    """The records of a study, arms in the order of the file; empty if there is none."""
    path = RECORDS / f"{name}.jsonl"
    found: Runs = defaultdict(dict)
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        record = json.loads(line)
        found[record["arm"]][record["seed"]] = record
    return dict(found)


_ROLL_CALL = ("task=roll_call", "steps=30", "evaluation.sampling.max_tokens=120")
# Made by `rlcsd warmstart roll_call_worked --out bases/roll_call_worked`, and the same for roll_call_many.
_WORKED = (*_ROLL_CALL, "model.path=bases/roll_call_worked", "task.worked=1.0")
_MANY = (*_ROLL_CALL, "model.path=bases/roll_call_many", "task.worked=1.0", "task.people=16")


def _method(name: str, *overrides: str, label: str = "") -> Arm:
    return Arm(label or name, (f"method={name}", *overrides))


def _rlcsd(label: str, *overrides: str, oracle: str | None = None) -> Arm:
    method = () if any(override.startswith("method=") for override in overrides) else ("method=rlcsd",)
    return Arm(label, (*method, *overrides), oracle)


_EIGHT = ("sdpo", "grpo", "rlcsd", "opsd", "rlsd", "srpo", "opsd_ectr", "rlsd_ectr")
_BOUND = dict.fromkeys(("opsd", "opsd_ectr"), ("max_grad_norm=0.1",))  # as published; the task sets it alike for all
_CANDIDATES = ("3e-5", "1e-4", "2e-4")
_FRESH = tuple(range(201, 211))
_DRIFT = (*_ROLL_CALL, "model=tiny_roll_call", "kl_coefficient=0")

# The learning rate of each method: three candidates on the validation split, two seeds that DRIFT does not use.
RATES = Study(
    "rates",
    (*_DRIFT, "task.eval_split=val"),
    tuple(
        _method(name, *_BOUND.get(name, ()), f"learning_rate={rate}", label=f"{name}@{rate}")
        for name in _EIGHT
        for rate in _CANDIDATES
    ),
    (101, 102),
    test=200,
)


def chosen_rates(study: str = "rates") -> dict[str, str]:
    """By method, the candidate with the best accuracy on validation problems of both kinds, as far as it has run."""
    found: dict[str, dict[str, float]] = {}
    for arm, by_seed in read_records(study).items():
        method, rate = arm.split("@")
        found.setdefault(method, {})[rate] = mean(record["test"]["average"] for record in by_seed.values())
    return {method: max(rates, key=lambda rate: rates[rate]) for method, rates in found.items()}


_CHOSEN = chosen_rates()


def _tuned(name: str, *overrides: str, label: str = "") -> Arm:
    """A method at its chosen learning rate, or at that of the task before there is one."""
    tuned = name.removesuffix("_extended")  # with the switches beyond the paper: at the method's own rate
    rate = (f"learning_rate={_CHOSEN[tuned]}",) if tuned in _CHOSEN else ()
    return _method(name, *_BOUND.get(name, ()), *rate, *overrides, label=label)


# variant=authors changes the learning rate, the batch or the length limit of some methods as well. Those belong to
# models of billions of parameters, so this study takes from it what concerns the method, and the rest is as for all.
_AUTHORS = (
    _tuned("opsd", "sampling.temperature=1.1", "model.lora.rank=64", "model.lora.alpha=128", label="opsd-authors"),
    _tuned("sdpo", "method.hint_source=own_rollout", "method.estimator=mean", label="sdpo-authors"),
    _tuned("rlsd", "method.hint_source=answer_only", "method.reduction=sequence", label="rlsd-authors"),
    _tuned("srpo", "method.route=reward", label="srpo-authors"),
    _tuned("grpo", "method.reduction=sequence", "prompts_per_update=8", label="grpo-authors"),
    _tuned("rlcsd", "method.path_norm=rollout", label="rlcsd-authors"),
)
# With opsd, rlsd (hint: the solution), opsd_ectr, rlsd_ectr and rlcsd (contrast) these make the paper's section 4.3.
SOURCES = (
    _tuned("opsd", "method.hint_source=own_rollout", label="opsd-rollout"),
    _tuned("rlsd", "method.hint_source=own_rollout", label="rlsd-rollout"),
    _tuned("rlcsd_extended", "method.evidence=one_sided", "method.hint_source=gt_cot", label="rlcsd-solution"),
    _tuned("rlcsd_extended", "method.evidence=one_sided", label="rlcsd-rollout"),
)
PLUGIN = {
    method: {"solution": solution, "own rollout": rollout, "contrast": contrast}
    for method, solution, rollout, contrast in (
        ("opsd", "opsd", "opsd-rollout", "opsd_ectr"),
        ("rlsd", "rlsd", "rlsd-rollout", "rlsd_ectr"),
        ("rlcsd", "rlcsd-solution", "rlcsd-rollout", "rlcsd"),
    )
}

DRIFT = Study("drift", _DRIFT, (*(_tuned(name) for name in _EIGHT), *_AUTHORS, *SOURCES), _FRESH[:8], test=400)


def _changed(name: str) -> tuple[Arm, ...]:
    """A method with one thing changed at a time, from the task's own learning rate."""
    published = name == "opsd"  # opsd has a fixed teacher and a bound of 0.1; the others neither
    changes = {
        "rate": ("learning_rate=3e-4",),
        "bound": ("max_grad_norm=1.0" if published else "max_grad_norm=0.1",),
        "teacher": ("method.teacher=snapshot" if published else "method.teacher=fixed",),
        "short": ("sampling.max_tokens=56",),
        "style": ("model.path=bases/roll_call_worked", "task.worked=1.0"),  # hinted or not, this base writes alike
    }
    return tuple(_method(name, *_BOUND.get(name, ()), *keys, label=f"{name}-{what}") for what, keys in changes.items())


# When does entropy explode, and when do responses shrink?
MODES = Study(
    "modes",
    _DRIFT,
    tuple(arm for name in ("opsd", "sdpo", "srpo", "rlsd") for arm in _changed(name)),
    _FRESH[:3],
    test=200,
)

CREDIT = Study(
    "credit",
    (*_WORKED, "kl_coefficient=0"),
    (
        _method("grpo"),
        _rlcsd("oracle", oracle="whole"),
        _rlcsd("rlcsd"),
        _rlcsd("spares", "method=rlcsd_extended", "method.spare=0.5", "method.weight_cap=3", "method.unusable=plain"),
        _rlcsd("plain", "method.unusable=plain"),
        _rlcsd("both-sides", "method=rlcsd_extended", "method.k_correct=4"),
        _rlcsd("gt_cot", "method.hint_source=gt_cot"),
        _rlcsd("capped", "method=rlcsd_extended", "method.weight_cap=3"),
        _rlcsd("one-path", "method.two_path=false", "method.tau=0.5"),
        _rlcsd("unsigned", "method=rlcsd_extended", "method.shift=false"),
        _rlcsd("spare-alone", "method=rlcsd_extended", "method.spare=0.5"),
        _rlcsd("oracle-dropped", oracle="dropped"),
        _rlcsd("oracle-unspared", oracle="unspared"),
        _rlcsd("oracle-noisy", oracle="noisy"),
        _rlcsd("oracle-capped", "method=rlcsd_extended", "method.weight_cap=3", oracle="whole"),
        _rlcsd("oracle-one-path", "method.two_path=false", oracle="whole"),
    ),
    _FRESH,
)

# Fresh seeds for the arms of CREDIT that came out above grpo there: of many arms some do by chance.
CONFIRM = Study(
    "confirm",
    CREDIT.common,
    tuple(CREDIT.arm(name) for name in ("grpo", "rlcsd", "spares", "spare-alone")),
    tuple(range(211, 221)),
)


def _by_size(speakers: int, group: int) -> tuple[Arm, ...]:
    """Whole-answer credit, the oracle and rlcsd for answers of so many decisions and groups of so many rollouts."""
    size = (f"task.train_sizes=[{speakers}]", f"group_size={group}", f"sampling.max_tokens={24 * speakers}")
    ends = f"-{speakers}-g{group}"
    return (
        _method("grpo", *size, label=f"grpo{ends}"),
        _rlcsd(f"oracle{ends}", *size, oracle="whole"),
        _rlcsd(f"rlcsd{ends}", *size),
    )


# Whole-answer credit against token credit as the decisions become more and the rollouts fewer.
DECISIONS = Study(
    "decisions",
    (*_MANY, "kl_coefficient=0", "task.unseen_sizes=[]", "evaluation.sampling.max_tokens=288"),
    tuple(arm for speakers in (3, 5, 8, 12) for group in (4, 8) for arm in _by_size(speakers, group)),
    _FRESH,
    test=400,
)

# The embedded default, Knights & Knaves: three people are trained on, four and five are not.
DEFAULT = Study(
    "default",
    ("kl_coefficient=0", "evaluation.samples=2"),
    (
        _method("grpo"),
        _rlcsd("rlcsd"),
        _rlcsd("both-sides", "method=rlcsd_extended", "method.k_correct=4"),
        _rlcsd("one-wrong", "method.k_max=1"),
        _rlcsd("tau1", "method.tau=1.0"),
        _rlcsd("plain", "method.unusable=plain"),
    ),
    tuple(range(101, 107)),
    test=150,  # of three people there are no more test puzzles that differ
    before=True,
)

SEVERITIES = {"misaligned": "here", "severe": "severe"}  # ending of an arm, and severity (see misaligned.py)


def _aligned_or_not(arms: Iterable[Arm]) -> tuple[Arm, ...]:
    """The arms, and each that has a teacher with that teacher's values at the wrong tokens."""
    arms = tuple(arms)
    displaced = (
        replace(arm, name=f"{arm.name}-{ending}", severity=severity)
        for ending, severity in SEVERITIES.items()
        for arm in arms
        if arm.name != "grpo"
    )
    return (*arms, *displaced)


# What misaligned teachers do: the methods of DRIFT and its seeds, with half as many test problems.
ALIGNMENT = Study("alignment", _DRIFT, _aligned_or_not(_tuned(name) for name in _EIGHT), _FRESH[:8], test=200)

# The same where every line is worked and what a method learns is to judge: a one-sided distillation, a one-sided
# credit and the contrast, at the learning rate of the task as in CREDIT.
ALIGNMENT_CREDIT = Study(
    "alignment_credit",
    CREDIT.common,
    (_method("grpo"), *_aligned_or_not(_method(name) for name in ("sdpo", "rlsd", "rlcsd"))),
    _FRESH[:8],
    test=200,
)

# What concerns the method of variant=pw_opsd; its sizes belong to models of billions of parameters.
_PW_OPSD = tuple(
    f"method.{key}" for key in ("position_floor=0.25", "reduction=sequence", "temperature=1.1", "add_tail=false")
)

# The family: baselines without a teacher, the paper's eight, and its relatives, by the overrides of each.
FAMILY = {
    **{name: (f"method={name}",) for name in ("grpo", "dapo", "dr_grpo", "gspo", "cispo", "rloo", "opsa")},
    **{name: (f"method={name}", *_BOUND.get(name, ())) for name in _EIGHT if name != "grpo"},
    **{name: (f"method={name}",) for name in ("cepo", "sdar")},
    "pw_opsd": ("method=opsd", *_BOUND["opsd"], *_PW_OPSD),
    "sdft": ("method=sdpo", "variant=sdft"),
    "rlcsd-dapo": ("method=rlcsd", "objective=dapo"),
    "spares": CREDIT.arm("spares").overrides,
}


def _family(task: str, common: tuple[str, ...]) -> tuple[Study, Study]:
    """Two studies of one task: every method at three learning rates on validation problems, and at its best on others.

    The second has the rates of the task before the first has run.
    """
    validated = tuple(
        Arm(f"{name}@{rate}", (*overrides, f"learning_rate={rate}"))
        for name, overrides in FAMILY.items()
        for rate in _CANDIDATES
    )
    rates = Study(f"family_{task}_rates", (*common, "task.eval_split=val"), validated, (111, 112), test=200)
    best = chosen_rates(rates.name)
    arms = (Arm(name, (*overrides, f"learning_rate={best.get(name, '1e-4')}")) for name, overrides in FAMILY.items())
    return rates, Study(f"family_{task}", common, tuple(arms), tuple(range(221, 229)), test=200)


FAMILY_STUDIES = (*_family("drift", _DRIFT), *_family("credit", CREDIT.common))

# Truncated sampling as published: log-probs over the vocabulary, and among the tokens that were left (sampling_mask).
# Without masks the importance weights have the kept mass to correct, so grpo has the forms of the correction as well.
_CORRECTIONS = {
    "none": ("rollout_correction=none",),
    "token_mask": ("rollout_correction=token_mask", "importance_weight_floor=0.5"),
    "sequence_truncate": ("rollout_correction=sequence_truncate",),
    "sequence_mask": ("rollout_correction=sequence_mask", "importance_weight_floor=0.5"),
    "rejection": ("rollout_rejection=[0.98,1.02]",),
}
MASK = Study(
    "mask",
    (*_DRIFT, "sampling.top_p=0.95", "sampling.top_k=20"),
    (
        *(
            _tuned(name, f"sampling_mask={kept}", label=f"{name}-{label}")
            for name in ("grpo", "rlsd", "rlcsd")
            for kept, label in (("false", "vocabulary"), ("true", "mask"))
        ),
        *(_tuned("grpo", "sampling_mask=false", *keys, label=f"grpo-{label}") for label, keys in _CORRECTIONS.items()),
    ),
    _FRESH[:8],
    test=200,
)

# What the code behind the paper's tables did differently from its configs (docs/as_run.md), one switch at a time. The
# budget gives micro-batches of about one rollout to rlcsd and of four to opsd, as at the published sizes.
_CUT = "normalisation_tokens=1280"
_AS_RUN = {
    "": (),
    "-bf16": ("model.master_dtype=bfloat16",),
    "-micro": ("loss_normalisation=micro_batch", _CUT),
    "-as_run": ("variant=as_run", _CUT),
}
_LIVE = {"-live": ("method.teacher=policy",)}  # opsd's fixed teacher as it was
# The rates of these small models are large against the spacing of bfloat16 weights. At a tenth of it a step changes a
# few per cent of them at most, as the published 1e-6 does; seven times as many steps make up for it in part.
_SLOW = ("learning_rate=1e-5", "steps=200")


def _as_run(arm: Arm, switches: dict[str, tuple[str, ...]]) -> tuple[Arm, ...]:
    return tuple(Arm(f"{arm.name}{end}", (*arm.overrides, *keys)) for end, keys in switches.items())


AS_RUN = Study(
    "as_run",
    (*_DRIFT, "model.dtype=bfloat16"),
    (
        *_as_run(_tuned("grpo"), _AS_RUN),
        *_as_run(_tuned("rlcsd"), _AS_RUN),
        *_as_run(_tuned("opsd"), _AS_RUN | _LIVE),
        *_as_run(_method("grpo", *_SLOW, label="grpo_slow"), {end: _AS_RUN[end] for end in ("", "-bf16")}),
    ),
    _FRESH[:8],
    test=200,
)
AS_RUN_CREDIT = Study(
    "as_run_credit",
    (*CREDIT.common, "model.dtype=bfloat16"),
    (*_as_run(_method("grpo"), _AS_RUN), *_as_run(_method("rlcsd"), _AS_RUN)),
    _FRESH[:8],
    test=200,
)

STUDIES = {
    study.name: study
    for study in (
        RATES,
        DRIFT,
        MODES,
        CREDIT,
        CONFIRM,
        DECISIONS,
        DEFAULT,
        ALIGNMENT,
        ALIGNMENT_CREDIT,
        MASK,
        *FAMILY_STUDIES,
        AS_RUN,
        AS_RUN_CREDIT,
    )
}
