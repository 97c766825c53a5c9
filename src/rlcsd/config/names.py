"""Other names of the keys: those of TRL, verl and OpenRLHF (`other_names.yaml`), and our own former ones.

`config.load` answers an unknown key with `unknown_key` and reads old run folders through `current_names`.
`python -m rlcsd.config.names` prints the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from typing import Any

import yaml

# Former names of keys and of variants. Overrides are answered with the present name; old run folders are read.
FORMER_KEYS = {
    "grad_norm": "max_grad_norm",
    "correction_cap": "importance_weight_cap",
    "method.advantage_std": "method.estimator",  # true was group, false mean
}
FORMER_VALUES = {"rollout_correction": {"token": "token_truncate"}}
FORMER_VARIANTS = {"spares": "spare_agreed_tokens"}
# Keys that rlcsd had, with their defaults; they are rlcsd_extended's now.
_FORMER_SWITCHES = {"k_correct": 1, "evidence": "contrast", "shift": True, "weight_cap": None, "spare": None}

_VAGUE = ("n", "name", "path", "len")  # last parts of other projects' names that say nothing by themselves


@dataclass(frozen=True)
class OtherName:
    """A setting of another project. `key` is ours, None if there is none; `remark` says what differs, or why not."""

    project: str
    name: str
    key: str | None
    remark: str = ""


@cache
def other_names() -> tuple[OtherName, ...]:
    """The table of `other_names.yaml`."""
    table = yaml.safe_load((Path(__file__).parent / "other_names.yaml").read_text(encoding="utf-8"))
    return tuple(_other_name(project, name, value) for project, names in table.items() for name, value in names.items())


def _other_name(project: str, name: str, value: str | list[str]) -> OtherName:
    if isinstance(value, list):
        return OtherName(project, name, *value)
    return OtherName(project, name, None, value) if " " in value else OtherName(project, name, value)


@cache
def _by_ending() -> Mapping[str, OtherName]:
    """Each name and each of its dotted endings (`rollout.n`), as far as all projects mean the same key by it."""
    found: dict[str, list[OtherName]] = {}
    for other in other_names():
        parts = other.name.split(".")
        for ending in (".".join(parts[start:]) for start in range(len(parts))):
            if ending not in _VAGUE:
                found.setdefault(ending, []).append(other)
    return {
        ending: others[0]
        for ending, others in found.items()
        if len({other.key for other in others}) == 1 or ending == others[0].name
    }


def unknown_key(key: str, known: Iterable[str], elsewhere: Mapping[str, Sequence[str]]) -> str:
    """What to say of an unknown key: its present name, its name here, who has it, or the nearest spelling.

    Args:
        key: the key, dotted.
        known: the valid keys.
        elsewhere: keys of other choices of a group, with these choices, such as `engine.nodes`: [`engine=verl`].
    """
    known = set(known)
    parts = key.split(".")
    if key in FORMER_KEYS:
        remark = " (true is group, false is mean)" if key == "method.advantage_std" else ""
        return f"its name is {FORMER_KEYS[key]!r} now{remark}"
    if key in elsewhere:
        return f"it is a key of {', '.join(elsewhere[key])}"
    for start in range(len(parts)):
        if other := _by_ending().get(".".join(parts[start:])):
            return _in_other_project(other, elsewhere)
    return _nearest(key, known)


def _in_other_project(other: OtherName, elsewhere: Mapping[str, Sequence[str]]) -> str:
    theirs = f"{other.project}'s {other.name}"
    if other.key is None:
        return f"{theirs} has no counterpart here: {other.remark}"
    remarks = [other.remark] if other.remark else []
    remarks += [f"a key of {', '.join(elsewhere[other.key])}"] if other.key in elsewhere else []
    remark = f" ({'; '.join(remarks)})" if remarks else ""
    return f"did you mean {other.key!r}{remark}, which is {theirs}?"


def _nearest(key: str, known: set[str]) -> str:
    """`did you mean` for a key of the same last part, else of a near one: in the same section, then in any."""
    section, _, last = key.rpartition(".")
    siblings = {name for name in known if name.rpartition(".")[0] == section}

    def likeness(name: str) -> float:
        return SequenceMatcher(None, last, name.rpartition(".")[2]).ratio()

    elsewhere = {name for name in known if not name.endswith(".name")}
    for names, enough in ((elsewhere, 1.0), (siblings, 0.55), (elsewhere, 0.75)):
        nearest = max(names, key=lambda name: (likeness(name), -name.count("."), name), default="")
        if nearest and likeness(nearest) >= enough:
            return f"did you mean {nearest!r}?"
    return f"known: {', '.join(sorted(siblings or known))}"


def current_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an old config under the present names of their keys."""
    renamed = {FORMER_KEYS.get(key, key): value for key, value in values.items()}
    for key, names in FORMER_VALUES.items():
        if isinstance(renamed.get(key), str):
            renamed[key] = names.get(renamed[key], renamed[key])
    method = renamed.get("method")
    if isinstance(method, Mapping) and "advantage_std" in method:
        estimator = "group" if method["advantage_std"] else "mean"
        method = {key: value for key, value in method.items() if key != "advantage_std"} | {"estimator": estimator}
        renamed["method"] = method
    if isinstance(method, Mapping) and method.get("name") == "rlcsd" and _FORMER_SWITCHES.keys() & method.keys():
        if any(method.get(key, default) != default for key, default in _FORMER_SWITCHES.items()):
            renamed["method"] = {**method, "name": "rlcsd_extended"}
        else:
            renamed["method"] = {key: value for key, value in method.items() if key not in _FORMER_SWITCHES}
    return renamed


def page() -> str:
    """The table as a page of the documentation."""
    lines = [
        "# Names in other projects",
        "",
        "Settings of TRL, verl and OpenRLHF, and what they are called here. Settings of the same name are left out.",
        "Unknown keys are answered from it: `rlcsd train num_generations=8` asks whether `group_size` was meant.",
        "`rlcsd config keys` explains each key; `python -m rlcsd.config.names` prints this page.",
    ]
    for project in dict.fromkeys(other.project for other in other_names()):
        lines += ["", f"## {project}", "", f"| {project} | here | remark |", "|---|---|---|"]
        lines += [
            f"| `{other.name}` | {f'`{other.key}`' if other.key else 'none'} | {other.remark} |"
            for other in other_names()
            if other.project == project
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
