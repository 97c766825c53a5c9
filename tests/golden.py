"""Check every method against a golden file: `python -m tests.golden PREFIX`.

Reads PREFIX.npz and PREFIX.json (the format of `tests/data/golden_losses`), prints both errors for each
case and exits 1 on a miss: loss within 1e-9 (absolute or relative, whichever is looser near zero) and
gradient within 1e-8 relative, in float64.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlcsd.methods import METHODS, Method, StudentLogProbs, TokenBatch

LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-9, 1e-8

# Names of the published code's hyper-parameters → ours, by method where they differ.
RENAMED = {
    "epsilon": "epsilon", "clip_ratio_c": "dual_clip", "jsd_token_clip": "clip", "distill_add_tail": "add_tail",
    "is_clip": "ratio_cap", "srpo_beta": "entropy_beta", "epsilon_w": "epsilon_weight", "lam": "lam",
    "lam_decay_steps": "lam_decay_steps", "opsd_ectr_alpha": "alpha", "opsd_ectr_log_w_floor": "log_wrong_floor",
    "rlcsd_tau": "tau", "rlcsd_beta": "beta", "rlcsd_lam": "lam", "rlcsd_delta": "delta", "rlcsd_eta": "eta",
    "rlcsd_residual_clip_low": "residual_low",
    "rlcsd_residual_clip_high": "residual_high", "opsd_ectr_cw_tau": "weight_tau", "alpha": "alpha",
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    label: str
    loss_error: float
    gradient_error: float

    @property
    def ok(self) -> bool:
        return self.loss_error <= LOSS_TOLERANCE and self.gradient_error <= GRADIENT_TOLERANCE


def build(case: dict[str, Any]) -> Method:
    """The case's method with the case's own hyper-parameters."""
    cls = METHODS[case["method"]]
    known = cls.Config.model_fields
    values = {RENAMED[key]: value for key, value in case["hyperparameters"].items() if RENAMED.get(key) in known}
    if case["method"] == "opsd":  # its divergence parameter is called beta there
        values["alpha"] = case["hyperparameters"]["beta"]
    if case["top_k"]:
        values["top_k"] = case["top_k"]
    return cls.from_fields(**values)


def columns_of(case: dict[str, Any], arrays: Any, method: Method) -> tuple[torch.Tensor, torch.Tensor, TokenBatch]:
    """Student logits (leaf, `[B, T, V]`), the mask `[B, T]`, and the columns of the masked tokens."""

    def array(name: str) -> torch.Tensor:
        return torch.as_tensor(arrays[f"s{case['seed']}_{name}"])

    student = array("student").clone().requires_grad_()
    mask = array("mask").bool()
    ids = array("y")[mask]

    def log_probs(logits: torch.Tensor) -> torch.Tensor:
        return logits.log_softmax(-1)

    def chosen(full: torch.Tensor) -> torch.Tensor:
        return full.gather(-1, ids[:, None])[:, 0]

    teacher = log_probs(array("tc")[mask])
    wrong = log_probs(array("tw").transpose(1, 2)[mask])  # [N, K, V]
    valid = array("valid")
    if case["method"].endswith("_ectr"):
        wrong, valid = wrong[:, :1], torch.ones_like(valid[:, :1])  # by the file's format: their one hint is the first
    rows = torch.arange(mask.shape[0])[:, None].expand_as(mask)[mask]
    advantage = array("adv")[rows]
    batch = TokenBatch(
        rollout=rows,
        advantage=advantage,
        old_log_prob=chosen(log_probs(array("old")[mask])),
        correction=array("isw")[mask] if case["rollout_is_weights"] else torch.ones(len(ids), dtype=student.dtype),
        hinted=valid.any(dim=1)[rows] if method.needs_contrast else torch.ones(len(ids), dtype=torch.bool),
        is_correct=advantage > 0,
        teacher_log_prob=chosen(teacher),
        teacher_entropy=-(teacher.exp() * teacher).sum(-1),
        contrast_log_prob=wrong.gather(-1, ids[:, None, None].expand(-1, wrong.shape[1], 1))[..., 0],
        contrast_valid=valid[rows],
    )
    if method.topk_from != "none":
        source = teacher if method.topk_from == "teacher" else log_probs(student.detach()[mask])
        support = source.topk(min(method.top_k, source.shape[-1])).indices
        batch = batch.with_columns(
            topk_ids=support, teacher_topk=teacher.gather(-1, support), contrast_topk=wrong[:, 0].gather(-1, support)
        )
    return student, mask, batch


def check(case: dict[str, Any], arrays: Any) -> Outcome:
    """Errors of one case."""
    method = build(case)
    student, mask, batch = columns_of(case, arrays, method)
    full = student[mask].log_softmax(-1)
    ids = torch.as_tensor(arrays[f"s{case['seed']}_y"])[mask]
    at_support = None if batch.topk_ids is None else full.gather(-1, batch.topk_ids)
    policy = StudentLogProbs(full.gather(-1, ids[:, None])[:, 0], at_support)
    loss = method.token_loss(policy, method.prepare(batch, case["step"])).sum()
    loss.backward()
    assert student.grad is not None
    expected = torch.as_tensor(arrays[f"s{case['seed']}_{case['method']}_{int(case['rollout_is_weights'])}_grad"])
    loss_error = abs(loss.item() - case["loss"]) / max(1.0, abs(case["loss"]))
    gradient_error = ((student.grad - expected).norm() / expected.norm()).item()
    label = f"seed {case['seed']}  {case['method']:<10} {'with w' if case['rollout_is_weights'] else 'without w'}"
    return Outcome(label, loss_error, gradient_error)


def outcomes(prefix: str | Path) -> list[Outcome]:
    cases = json.loads(Path(f"{prefix}.json").read_text())
    arrays = np.load(f"{prefix}.npz")
    return [check(case, arrays) for case in cases]


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m tests.golden PREFIX   (reads PREFIX.npz and PREFIX.json)", file=sys.stderr)
        return 2
    missing = [suffix for suffix in (".json", ".npz") if not Path(arguments[0] + suffix).is_file()]
    if missing:
        print(f"PREFIX={arguments[0]}: there is no file {arguments[0]}{missing[0]}", file=sys.stderr)
        return 2
    found = outcomes(arguments[0])
    for outcome in found:
        verdict = "ok" if outcome.ok else "MISS"
        print(f"{outcome.label:<32} loss {outcome.loss_error:.1e}  gradient {outcome.gradient_error:.1e}  {verdict}")
    misses = sum(not outcome.ok for outcome in found)
    print(f"{len(found) - misses} of {len(found)} cases agree")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
