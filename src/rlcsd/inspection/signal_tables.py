"""Markdown tables of token signals, and how a signal splits into style and task without a list of words.

A hint moves the teacher in two ways. What any hint in the template does (write without interjections, get to the point)
happens under correct and wrong hints alike; what bears on the task happens under one of them. So the share of a token's
gap that both hints have in common separates the two on any task. RLCSD (arXiv 2606.11709, section 2) calls them style
and task tokens, and separates them by words. Printed by `rlcsd inspect`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .signals import KINDS, SIGNALS, SignalTable

SHARED, OWN, QUIET = "shared", "own", "quiet"
_QUIET = 0.01  # nats: a token that no hint moves more than this is neither shared nor own
_HEADS = {"teacher_gap": "gap under h_c", "wrong_gap": "gap under h_w", "contrast": "e_ctr"}
_TASK = ("conclusion", "verdict", "task")
NOTHING = "–"


def mean_table(table: SignalTable, kinds: Sequence[str] = KINDS) -> str:
    """Mean of each signal, mean size of the last one and number of tokens, by kind and by target."""
    signals = [name for name in SIGNALS if name in table.columns]
    rows = []
    for kind in kinds:
        for target in ("correct", "wrong"):
            columns = [table.values(kind, target, name) for name in signals]
            if len(columns[0]):
                means = [f"{values.mean():+.3f}" for values in columns]
                rows.append([kind, target, str(len(columns[0])), *means, f"{np.abs(columns[-1]).mean():.3f}"])
    heads = [_HEADS[name] for name in signals]
    return _markdown(["kind", "target", "tokens", *heads, f"mean abs {heads[-1]}"], rows)


def share_table(table: SignalTable, kind: np.ndarray, kinds: Sequence[str]) -> str:
    """How many tokens each kind has, and for each signal its mean size there and its share of the sum of sizes.

    `kind [N]` is the kind of each token: `table.kind`, or `shared_or_own(table)`.
    """
    signals = [name for name in SIGNALS if name in table.columns]
    rows = []
    for name in kinds:
        where = kind == name
        if not where.any():
            continue
        cells = [f"{where.mean():.1%}"]
        for signal in signals:
            sizes = np.abs(table.columns[signal])
            cells += [f"{sizes[where].mean():.3f}", f"{sizes[where].sum() / max(sizes.sum(), 1e-12):.1%}"]
        rows.append([name, *cells])
    heads = [f"{text} {_HEADS[name]}" for name in signals for text in ("mean abs", "share of")]
    return _markdown(["kind", "tokens", *heads], rows)


def common_share(teacher: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """`[N]` in [0, 1]: the smaller gap as a share of the larger one where both have one sign, else 0.

    `teacher` and `wrong` `[N]` are the gaps under correct and wrong hints, in nats.
    """
    small, large = np.minimum(np.abs(teacher), np.abs(wrong)), np.maximum(np.abs(teacher), np.abs(wrong))
    return np.where((teacher * wrong > 0) & (large > 0), small / np.where(large > 0, large, 1.0), 0.0)


def shared_or_own(table: SignalTable) -> np.ndarray | None:
    """`[N]`: `shared` (at least half of the larger gap is common to both hints), `own`, or `quiet` (no hint moves it).

    None without gaps under wrong hints.
    """
    if "wrong_gap" not in table.columns:
        return None
    teacher, wrong = table.columns["teacher_gap"], table.columns["wrong_gap"]
    moved = np.maximum(np.abs(teacher), np.abs(wrong)) >= _QUIET
    return np.where(~moved, QUIET, np.where(common_share(teacher, wrong) >= 0.5, SHARED, OWN))


def table_by_k(table: SignalTable) -> str:
    """The contrast with the first k wrong hints alone, for each k, over rollouts with several; "" if there are none."""
    log_prob, valid = table.contrast_log_prob, table.contrast_valid
    if log_prob is None or valid is None or log_prob.shape[1] < 2:
        return ""
    rows = []
    for k in range(1, log_prob.shape[1] + 1):
        kept = np.where(valid[:, :k], log_prob[:, :k], -np.inf)
        largest = kept.max(axis=1)
        marginal = largest + np.log(np.exp(kept - largest[:, None]).sum(axis=1) / valid[:, :k].sum(axis=1))
        contrast = table.columns["teacher_gap"] + table.old_log_prob - marginal
        rows.append([f"up to {k}" if k > 1 else "1", *_style_and_task(table, contrast, valid[:, 1])])
    return _markdown(["K", *_STYLE_AND_TASK], rows)


def table_by_template(tables: dict[str, SignalTable]) -> str:
    """The same figures for several wordings around the hint, by their names."""
    rows = [
        [name, *_style_and_task(table, table.columns["contrast"], np.ones(len(table.kind), dtype=bool))]
        for name, table in tables.items()
        if len(table.kind)
    ]
    return _markdown(["template", *_STYLE_AND_TASK], rows)


_STYLE_AND_TASK = ("gap on style", "e_ctr on style", "e_ctr on task", "wrong sign, correct rollouts", "wrong rollouts")


def _style_and_task(table: SignalTable, contrast: np.ndarray, some: np.ndarray) -> list[str]:
    """Mean sizes on style and task tokens, and wrong signs, over the tokens where `some [N]` is True."""
    style, task = some & (table.kind == "style"), some & np.isin(table.kind, _TASK)

    def size(values: np.ndarray, where: np.ndarray) -> str:
        return f"{np.abs(values[where]).mean():.3f}" if where.any() else NOTHING

    sizes = [size(table.columns["teacher_gap"], style), size(contrast, style), size(contrast, task)]
    return [*sizes, *(_sign_errors(table, contrast, some, target) for target in (True, False))]


def _sign_errors(table: SignalTable, contrast: np.ndarray, some: np.ndarray, target: bool) -> str:
    """Share of rollouts whose contrast, summed over their tokens, does not have the sign of their verdict."""
    where = some & (table.target == target)
    rollouts = np.unique(table.rollout[where])
    if not len(rollouts):
        return NOTHING
    sums = np.bincount(table.rollout[where], weights=contrast[where])[rollouts]
    return f"{float(((sums <= 0) if target else (sums >= 0)).mean()):.1%} of {len(rollouts)}"


def why_no_signal(table: SignalTable) -> str:
    """Why no token was scored, and what would help."""
    count, wrong, correct = table.rollouts, table.missing.get("wrong", 0), table.missing.get("correct", 0)
    if table.accuracy == 0:
        return f"All {count} rollouts are wrong, so there is no correct hint: take easier problems or a stronger model."
    if table.accuracy == 1:
        return f"All {count} rollouts are correct, so there is no wrong hint: take harder problems."
    return (
        f"No rollout has all the hints it needs: of {count} rollouts {correct} have no correct sibling and {wrong} no "
        "wrong one with an answer. A larger group_size, problems of middling difficulty or a larger "
        "sampling.max_tokens helps."
    )


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])
