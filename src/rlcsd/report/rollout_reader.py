"""Read and check `rollouts.jsonl`, which `run.rollout_log` writes: groups, rollouts, and signals on tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..storage import read_jsonl
from .run_results import read_config

SCHEMAS = (2, 3)
Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class LoggedHint:
    """A hint: its index in the group (−1: the data set's), its final answer, its text (None: the answer alone), whether
    it is a correct one, and its kind (`records.Hint.kind`)."""

    index: int
    answer: str
    text: str | None
    correct: bool
    kind: str = "solution"


@dataclass(frozen=True)
class LoggedRollout:
    """One rollout of T recorded tokens. `spans [T, 2]` are characters of `text`; `signals` maps a name to `[T]`.

    The signals, as far as the record has them: `teacher_gap` = log π_T(y|h_c) − log π, `wrong_gap` (the same under the
    wrong hints), `contrast`, `credit` (what the method added to the group's advantage), `final_advantage`, `divergence`
    (the factor of a divergence), `entropy`, `log_prob`, `weight` and `selected` (0 or 1).
    """

    text: str
    spans: np.ndarray
    signals: Columns
    facts: Mapping[str, Any]  # reward, correct, advantage, answer, finished, updated, tokens, cut
    hints: tuple[LoggedHint, ...]  # correct ones, then wrong ones; empty if there are none


@dataclass(frozen=True)
class LoggedGroup:
    """The rollouts of one problem at one step."""

    step: int
    group: int
    kind: str
    question: str
    answer: str
    rollouts: tuple[LoggedRollout, ...]


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
        "teacher_gap": None if teacher is None or old is None else teacher - old,
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
        "answer": record.get("answer", record["boxed"]),
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
    correct = [record["correct"], *record.get("more", ())]
    return (*(_hint(one, True) for one in correct), *(_hint(one, False) for one in record["wrong"]))


def _hint(record: Mapping[str, Any], correct: bool) -> LoggedHint:
    text = record["text"]
    kind = str(record.get("kind", "solution"))
    return LoggedHint(int(record["place"]), str(record["answer"]), None if text is None else str(text), correct, kind)
