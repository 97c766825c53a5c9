"""`rollouts.jsonl` as `run/rollouts.py` writes it, read back and checked: groups, rollouts, and signals on tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..errors import InputError
from ..storage import read_jsonl

SCHEMAS = (2, 3)
Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class LoggedHint:
    """A hint: its text (None: the answer alone), its final answer, and its place in the group (−1: the data set's)."""

    place: int
    answer: str
    text: str | None


@dataclass(frozen=True)
class LoggedRollout:
    """One rollout of T recorded tokens. `spans [T, 2]` are characters of `text`; `signals` maps a name to `[T]`.

    The signals, as far as the record has them: `correct_gap` = log π_T(y|h_c) − log π, `wrong_gap` (the same under the
    wrong hints), `contrast`, `credit` (what the method added to the group's advantage), `final_advantage`, `divergence`
    (the factor of a divergence), `entropy`, `log_prob`, `weight` and `selected` (0 or 1).
    """

    text: str
    spans: np.ndarray
    signals: Columns
    facts: Mapping[str, Any]  # reward, correct, advantage, boxed, finished, updated, tokens, cut
    hints: tuple[LoggedHint, ...]  # correct ones, then wrong ones; empty if none were drawn


@dataclass(frozen=True)
class LoggedGroup:
    """The rollouts of one problem at one step."""

    step: int
    group: int
    kind: str
    question: str
    answer: str
    rollouts: tuple[LoggedRollout, ...]


def read_config(folder: Path) -> dict[str, Any]:
    """The config of the run in `folder`.

    Raises:
        InputError: the folder holds no run, or its config cannot be read.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise InputError(f"{folder}: there is no run here (no config.yaml)")
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(config["method"]["name"], str) or not isinstance(config["seed"], int):
            raise TypeError
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError):
        raise InputError(f"{path}: this is not the config of a run; give the folder of `rlcsd train`") from None
    return dict(config)


def read_groups(folder: Path) -> list[LoggedGroup]:
    """All recorded groups of a run, in the order in which they were written; a torn last record does not count.

    Raises:
        InputError: the folder holds no run, the run has recorded no rollouts, or they are of another format.
    """
    config = read_config(folder)
    path = folder / "rollouts.jsonl"
    records = read_jsonl(path)
    if not records:
        if config.get("log_rollouts") == 0:
            raise InputError(f"{folder}: this run was told to record no rollouts (log_rollouts=0)")
        raise InputError(f"{folder}: no rollouts are recorded here yet; they come with the first step")
    return [_group(record, f"{path}, line {number}", config) for number, record in enumerate(records, start=1)]


def _group(record: Mapping[str, Any], where: str, config: Mapping[str, Any]) -> LoggedGroup:
    schema = record.get("schema", 1)
    if schema not in SCHEMAS:
        older = not isinstance(schema, int) or schema < min(SCHEMAS)
        advice = "it was written by an older version; train again" if older else "use the version that wrote it"
        raise InputError(f"{where}: schema {schema} cannot be read, only {SCHEMAS[0]} to {SCHEMAS[-1]}; {advice}")
    try:
        rollouts = tuple(_rollout(one, schema, config["method"]["name"]) for one in record["rollouts"])
        if not rollouts:
            raise ValueError("no rollout")
        return LoggedGroup(
            int(record["step"]),
            int(record["group"]),
            str(record.get("kind", "")),
            str(record["question"]),
            str(record["answer"]),
            rollouts,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{where}: the record is damaged ({type(error).__name__}: {error})") from None


def _rollout(record: Mapping[str, Any], schema: int, method: str) -> LoggedRollout:
    def column(name: str) -> np.ndarray | None:
        if name not in record:
            return None
        values = np.asarray(record[name], dtype=np.float64)  # null, a value that is not finite, becomes nan
        if values.shape != (record["tokens"],):
            raise ValueError(f"{name} does not have {record['tokens']} values")
        return values

    start, end = column("start"), column("end")
    if start is None or end is None:
        raise KeyError("start and end")
    read = {name: column(name) for name in ("log_prob", "entropy", "selected", "final_advantage", "credit", "weight")}
    if schema == 2:  # one column for both meanings; weights were divided by the number of tokens, which is not recorded
        read["weight"] = None
        if method != "srpo":
            read |= {"final_advantage": read["credit"], "credit": None}
    teacher, wrong, old, final = column("teacher"), column("wrong"), read["log_prob"], read["final_advantage"]
    signals = {
        "correct_gap": None if teacher is None or old is None else teacher - old,
        "wrong_gap": None if wrong is None or old is None else wrong - old,
        "contrast": None if wrong is None else column("contrast"),
        "credit": None if final is None else final - float(record["advantage"]),
        "final_advantage": final,
        "divergence": read["credit"],
        **{name: read[name] for name in ("entropy", "log_prob", "weight", "selected")},
    }
    spans, text = np.stack([start, end], axis=1).astype(np.int64), str(record["text"])
    if np.any(spans < 0) or np.any(spans > len(text)) or np.any(spans[:, 0] > spans[:, 1]):
        raise ValueError("start and end lead out of the text")
    facts = {
        "reward": float(record["reward"]),
        "correct": bool(record["correct"]),
        "advantage": float(record["advantage"]),
        "boxed": record["boxed"],
        "finished": record.get("finished"),
        "updated": bool(record["updated"]),
        "tokens": int(record["tokens"]),
        "cut": int(record["cut"]),
    }
    present = {name: values for name, values in signals.items() if values is not None}
    return LoggedRollout(text, spans, present, facts, _hints(record.get("hints")))


def _hints(record: Mapping[str, Any] | None) -> tuple[LoggedHint, ...]:
    if record is None:
        return ()
    return tuple(
        LoggedHint(int(hint["place"]), str(hint["answer"]), None if hint["text"] is None else str(hint["text"]))
        for hint in (record["correct"], *record.get("more", ()), *record["wrong"])
    )
