"""One self-contained HTML page of a run's recorded rollouts: every token shaded by what the method saw on it.

The page is one file without network or build step. Text of the model is data: it stands in a JSON block in which no
character can end the block, the script puts it on the screen as text alone, and a content security policy allows no
other script.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..storage import read_jsonl, write_text
from .rollout_reader import LoggedGroup, LoggedRollout, read_groups
from .run_results import label_of_method, read_config

MAX_TOKENS = 1_500_000  # of a page, which then has about 40 MB
_INLINE_TOKENS = 60_000  # of a page inside a notebook, which keeps its outputs: about 2 MB
_HIGH = 97.0  # the percentile of |signal| over the run that gets the full colour

# Name: label, whether it has a sign, and what it means.
SIGNALS = {
    "contrast": (
        "Contrast",
        True,
        "how much likelier the correct hint makes this token than wrong ones do (nats)",
    ),
    "teacher_gap": ("Gap, correct hint", True, "teacher with the correct hint minus policy, log π_T(y|h_c) − log π"),
    "wrong_gap": ("Gap, wrong hints", True, "teacher with the wrong hints, marginalised, minus policy (nats)"),
    "credit": ("Credit", True, "what the method added to the group's advantage on this token"),
    "final_advantage": ("Final advantage", True, "the advantage that the clipped surrogate sees on this token"),
    "divergence": ("Distillation weight", False, "the factor of this token's divergence; 0 where the reward trains it"),
    "entropy": ("Entropy", False, "entropy of the policy's distribution at this token (nats)"),
    "log_prob": ("Log-prob", True, "log-probability that the policy gave this token (nats)"),
    "weight": ("Weight in the loss", False, "1 is the weight of the plain mean over all tokens of the mini-batch"),
    "selected": ("Selected", False, "1 where the token takes the method's second path"),
}


def write_page(folder: Path, target: Path, steps: tuple[int, int] | None = None) -> str:
    """The page of the run in `folder`, written to `target`. Returns one sentence on what is in it.

    `steps` are the first and the last step shown. A run with more than `MAX_TOKENS` tokens is thinned out evenly.

    Raises:
        InputError: see `rollout_reader.read_groups`.
    """
    text, kept, left_out = _text(folder, steps, MAX_TOKENS)
    write_text(target, text)
    rollouts = [rollout for group in kept for rollout in group.rollouts]
    tokens = sum(len(rollout.spans) for rollout in rollouts)
    thin = f"; {left_out} steps between them are left out (choose with --steps)" if left_out else ""
    return f"{len({g.step for g in kept})} steps, {len(rollouts)} rollouts, {tokens:,} tokens{thin}"


def _text(folder: Path, steps: tuple[int, int] | None, max_tokens: int) -> tuple[str, list[LoggedGroup], int]:
    """The HTML of a run's page, the groups that it shows, and how many steps between them it leaves out."""
    groups = read_groups(folder)
    if steps is not None:
        groups = [group for group in groups if steps[0] <= group.step <= steps[1]]
    kept = thinned(groups, max_tokens)
    left_out = len({group.step for group in groups}) - len({group.step for group in kept})
    if not kept:
        asked = "" if steps is None else f"--steps {steps[0]}:{steps[1]}: "
        raise InputError(f"{asked}{folder} has recorded no rollouts of these steps")
    metrics = read_jsonl(folder / "metrics.jsonl")
    return page(page_data(read_config(folder), kept, metrics, folder.resolve().name, left_out)), kept, left_out


class Page:
    """The page of a run, written to `path`. A notebook shows it in a frame, with some of its steps if it is large.

    Raises:
        InputError: see `write_page`.
    """

    def __init__(self, folder: Path, path: Path, steps: tuple[int, int] | None = None) -> None:
        self.folder, self.path, self.steps = folder, path, steps
        self.content = write_page(folder, path, steps)

    def __repr__(self) -> str:
        return f"{self.path}: {self.content}"

    def _repr_html_(self) -> str:
        text = _text(self.folder, self.steps, _INLINE_TOKENS)[0]
        # Its own origin and no access to the notebook, whatever a model has written.
        style = "width:100%;height:720px;border:1px solid #ccc"
        return f'<iframe sandbox="allow-scripts" style="{style}" srcdoc="{html.escape(text)}"></iframe>'


def thinned(groups: Sequence[LoggedGroup], max_tokens: int) -> list[LoggedGroup]:
    """The groups of evenly spaced steps, as many as have at most `max_tokens` tokens; of one step at least."""
    tokens = sum(len(rollout.spans) for group in groups for rollout in group.rollouts)
    if tokens <= max_tokens:
        return list(groups)
    steps = sorted({group.step for group in groups})
    count = max(1, len(steps) * max_tokens // tokens)
    chosen = {steps[round(index)] for index in np.linspace(0, len(steps) - 1, count)}
    return [group for group in groups if group.step in chosen]


def page(data: dict[str, Any]) -> str:
    """The HTML text around the data."""
    assets = files(__package__) / "assets"
    template, style, script = ((assets / f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        "TITLE": html.escape(data["title"]),
        "HASH": digest,
        "STYLE": style,
        "DATA": embedded_json(data),
        "SCRIPT": script,
    }
    pieces = template.split("@@")  # text, NAME, text, NAME, … so that no value is searched for names
    return "".join(parts[piece] if number % 2 else piece for number, piece in enumerate(pieces))


def embedded_json(data: Any) -> str:
    """JSON that is safe inside a script element: no character of it can begin a tag, an entity or a line end."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def page_data(
    config: dict[str, Any], groups: Sequence[LoggedGroup], metrics: Sequence[dict[str, Any]], name: str, left_out: int
) -> dict[str, Any]:
    """All that the page shows, ready for JSON. Columns are float16 in base64: three digits are shown of them."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    present = {key for rollout in rollouts for key in rollout.signals}
    texts = _Texts()
    task = str((config.get("task") or {}).get("name"))
    return {
        "title": f"{label_of_method(config)} on {task.rpartition(':')[2]}",
        "facts": [
            ["run", name],
            ["model", str((config.get("model") or {}).get("path"))],
            ["seed", str(config["seed"])],
            *([["left out", f"{left_out} steps between those shown"]] if left_out else []),
        ],
        "signals": [
            {"key": key, "scale": _scale(key, rollouts), "label": label, "signed": signed, "about": about}
            for key, (label, signed, about) in SIGNALS.items()
            if key in present
        ],
        "reward": [
            [m["step"], m["rollout/reward"]]
            for m in metrics
            if m.get("rollout/reward") is not None and groups[0].step <= m["step"] <= groups[-1].step
        ],
        "groups": [_group_data(group, texts) for group in groups],
        "texts": texts.all,
    }


class _Texts:
    """Texts by number: many rollouts are shown the same hint."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self.index: dict[str, int] = {}

    def __call__(self, text: str | None) -> int | None:
        if text is None:
            return None
        if text not in self.index:
            self.index[text] = len(self.all)
            self.all.append(text)
        return self.index[text]


def _scale(key: str, rollouts: Sequence[LoggedRollout]) -> float:
    """The |value| that gets the full colour."""
    parts = [np.abs(rollout.signals[key]) for rollout in rollouts if key in rollout.signals]
    values = np.concatenate(parts)
    values = values[np.isfinite(values)]
    return float(np.float16(np.percentile(values, _HIGH))) if values.size and np.percentile(values, _HIGH) > 0 else 1.0


def _group_data(group: LoggedGroup, texts: _Texts) -> dict[str, Any]:
    return {
        "step": group.step,
        "group": group.group,
        "kind": group.kind,
        "question": group.question,
        "answer": group.answer,
        "rollouts": [_rollout_data(rollout, texts) for rollout in group.rollouts],
    }


def _rollout_data(rollout: LoggedRollout, texts: _Texts) -> dict[str, Any]:
    hints = [
        {
            "index": hint.index,
            "answer": hint.answer,
            "text": texts(hint.text),
            "correct": hint.correct,
            "kind": hint.kind,
        }
        for hint in rollout.hints
    ]
    return {
        **rollout.facts,
        "text": rollout.text,
        "lengths": _packed(_lengths(rollout), np.uint16),
        "signals": {key: _packed(values, np.float16) for key, values in rollout.signals.items()},
        "largest": {key: _largest(values) for key, values in rollout.signals.items()},
        "hints": hints or None,
    }


def _lengths(rollout: LoggedRollout) -> np.ndarray:
    """UTF-16 units of each token's text; 0 for a token that shares its characters with the one before."""
    units = np.array([0, *(2 if ord(character) > 0xFFFF else 1 for character in rollout.text)]).cumsum()
    starts, ends = units[rollout.spans[:, 0]], units[rollout.spans[:, 1]]
    shown = np.maximum.accumulate(np.concatenate([[0], ends]))
    return np.clip(ends - np.maximum(starts, shown[:-1]), 0, 0xFFFF)


def _largest(values: np.ndarray) -> list[float] | None:
    """Index and size of the largest |value|."""
    sizes = np.where(np.isfinite(values), np.abs(values), -1.0)
    if not sizes.size or sizes.max() < 0:
        return None
    index = int(np.flatnonzero(sizes == sizes.max())[0])
    return [index, round(float(sizes[index]), 6)]


def _packed(values: np.ndarray, kind: type[np.generic]) -> str:
    with np.errstate(over="ignore"):
        column = values.astype(np.dtype(kind).newbyteorder("<"))
    return base64.b64encode(column.tobytes()).decode()
