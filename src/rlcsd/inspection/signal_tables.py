"""How a signal divides between style and task: by words, and without words by what correct and wrong hints share.

A hint moves the teacher in two ways. What any hint in the template does (write without interjections, get to the point)
happens under correct and wrong hints alike; what bears on the task happens under one of them. So the share of a token's
gap that both hints have in common tells the two apart on any task, with no list of words (RLCSD, arXiv 2606.11709,
section 2, calls them style and task tokens by words).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .signals import SIGNALS, SignalTable

SHARED, OWN, QUIET = "shared", "own", "quiet"
_QUIET = 0.01  # nats: a token that no hint moves more than this is neither
_HEADS = {"teacher_gap": "gap under h_c", "wrong_gap": "gap under h_w", "contrast": "e_ctr"}


def common_share(correct: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """`[N]` in [0, 1]: min(|g_c|, |g_w|) / max(|g_c|, |g_w|) where both gaps have one sign, else 0."""
    small, large = np.minimum(np.abs(correct), np.abs(wrong)), np.maximum(np.abs(correct), np.abs(wrong))
    return np.where((correct * wrong > 0) & (large > 0), small / np.where(large > 0, large, 1.0), 0.0)


def called(table: SignalTable) -> np.ndarray | None:
    """`[N]`: `shared` (at least half of the larger gap is common to both hints), `own`, or `quiet` (no hint moves it).

    None without gaps under wrong hints.
    """
    if "wrong_gap" not in table.columns:
        return None
    correct, wrong = table.columns["teacher_gap"], table.columns["wrong_gap"]
    moved = np.maximum(np.abs(correct), np.abs(wrong)) >= _QUIET
    return np.where(~moved, QUIET, np.where(common_share(correct, wrong) >= 0.5, SHARED, OWN))


def division(table: SignalTable, kind: np.ndarray, kinds: Sequence[str]) -> str:
    """Markdown: how many tokens each kind has, and for each signal its mean size there and its share of the whole."""
    signals = [name for name in SIGNALS if name in table.columns]
    heads = [f"{text} {_HEADS[name]}" for name in signals for text in ("mean abs", "share of")]
    lines = [f"| kind | tokens | {' | '.join(heads)} |", "|---" * (len(heads) + 2) + "|"]
    for name in kinds:
        where = kind == name
        if not where.any():
            continue
        cells = [f"{where.mean():.1%}"]
        for signal in signals:
            sizes = np.abs(table.columns[signal])
            cells += [f"{sizes[where].mean():.3f}", f"{sizes[where].sum() / max(sizes.sum(), 1e-12):.1%}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def by_k(table: SignalTable) -> str:
    """Markdown: the contrast with the first k wrong hints alone, for each k; only rollouts with more than one count."""
    if table.wrong is None or table.wrong_valid is None or table.wrong.shape[1] < 2:
        return ""
    some = table.wrong_valid[:, 1]
    lines = [_DIVIDED_HEAD.format("K"), "|---" * 6 + "|"]
    for k in range(1, table.wrong.shape[1] + 1):
        valid = table.wrong_valid[:, :k]
        shown = np.where(valid, table.wrong[:, :k], -np.inf)
        largest = shown.max(axis=1)
        marginal = largest + np.log(np.exp(shown - largest[:, None]).sum(axis=1) / valid.sum(axis=1))
        contrast = table.columns["teacher_gap"] + table.old_log_prob - marginal
        lines.append(_divided(f"up to {k}" if k > 1 else "1", table, contrast, some))
    return "\n".join(lines)


def by_template(tables: dict[str, SignalTable]) -> str:
    """Markdown: the same figures for several wordings around the hint."""
    lines = [_DIVIDED_HEAD.format("template"), "|---" * 6 + "|"]
    for name, table in tables.items():
        if len(table.kind):
            lines.append(_divided(name, table, table.columns["contrast"], np.ones(len(table.kind), dtype=bool)))
    return "\n".join(lines)


_DIVIDED_HEAD = "| {} | gap on style | e_ctr on style | e_ctr on task | wrong sign, correct rollouts | wrong rollouts |"
_TASK = ("conclusion", "verdict", "task")


def _divided(name: str, table: SignalTable, contrast: np.ndarray, some: np.ndarray) -> str:
    style, task = some & (table.kind == "style"), some & np.isin(table.kind, _TASK)

    def size(values: np.ndarray, where: np.ndarray) -> str:
        return f"{np.abs(values[where]).mean():.3f}" if where.any() else "–"

    errors = [_sign_errors(table, contrast, some, target) for target in (True, False)]
    sizes = [size(table.columns["teacher_gap"], style), size(contrast, style), size(contrast, task)]
    return f"| {name} | {' | '.join([*sizes, *errors])} |"


def _sign_errors(table: SignalTable, contrast: np.ndarray, some: np.ndarray, target: bool) -> str:
    """Share of rollouts whose contrast, summed over their tokens, has not the verdict's sign."""
    where = some & (table.target == target)
    rollouts = np.unique(table.rollout[where])
    if not len(rollouts):
        return "–"
    sums = np.bincount(table.rollout[where], weights=contrast[where])[rollouts]
    return f"{float(((sums <= 0) if target else (sums >= 0)).mean()):.1%} of {len(rollouts)}"


def explanation(table: SignalTable) -> str:
    """Why there is nothing to show, and what would help."""
    count, wrong, correct = table.rollouts, table.missing.get("wrong", 0), table.missing.get("correct", 0)
    if table.accuracy == 0:
        return f"All {count} rollouts are wrong, so there is no correct hint: take easier problems or a stronger model."
    if table.accuracy == 1:
        return f"All {count} rollouts are correct, so there is no wrong hint: take harder problems."
    return (
        f"No rollout has all the hints it needs: of {count} rollouts {correct} have no correct sibling and {wrong} no "
        "wrong one with a boxed answer. A larger group_size, problems of middling difficulty or a larger "
        "sampling.max_tokens helps."
    )
