"""The data sets that the paper's authors published on the hub: fetched, checked, installed, and compared with ours.

A published data set is a folder `<root>/<name>` with the file as it was published, a card, and `published.json`, by
which it is told from one that `rlcsd data` built. One of ours with the same name is kept as `<name>.own`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import InputError
from ..records import Problem
from ..storage import whole_folder
from . import hub
from .parquet_layout import MARK, from_row, is_published
from .tabular import read_rows
from .task import normalised

REPO = "Leyiii/RLCSD"
TRAINING = ("deepmath_filtered_level5_7", "deepmath_filtered_level6_8", "deepmath_filtered_level7_10", "kk_4to8")
JOINED = {
    "amc23+aime24+aime25": ("amc23", "aime24", "aime25"),
    "kk_4to8_test+kk_9+kk_10+kk_11": ("kk_4to8_test", "kk_9", "kk_10", "kk_11"),
}
EVALUATION = tuple(name for names in JOINED.values() for name in names)
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "val", "eval": "val"}


# ------------------------------------------------------------------ finding


def located(source: hub.Snapshot, name: str) -> dict[str, list[hub.HubFile]]:
    """The parquet files of one data set by split, `train` or `val`; a file in several shards is a list.

    A file belongs to a data set if a folder above it, or the file itself, has its name (`kk_9/val.parquet`,
    `data/kk_9.parquet`, `kk_9-00000-of-00001.parquet`, `kk_9_test.parquet`).
    """
    found: dict[str, list[hub.HubFile]] = {}
    for file in sorted(source.files, key=lambda file: file.path):
        split = _split_of(file, name) if file.path.endswith(".parquet") else None
        if split is not None:
            found.setdefault(split, []).append(file)
    return found


def _split_of(file: hub.HubFile, name: str) -> str | None:
    folders, stem = PurePosixPath(file.path).parts[:-1], file.stem
    usual = "train" if name in TRAINING else "val"
    if stem == name:
        return usual
    if name in folders:
        return _SPLITS.get(re.split(r"[-_.]", stem)[0], usual)
    base, _, ending = stem.rpartition("_")
    return _SPLITS[ending] if base == name and ending in _SPLITS and stem not in (*TRAINING, *EVALUATION) else None


def others(source: hub.Snapshot) -> list[str]:
    """Names of further data sets in the repository: folders with parquet files, or files of their own."""
    known = {*TRAINING, *EVALUATION, *JOINED}
    names: dict[str, None] = {}
    for file in source.files:
        if file.path.endswith(".parquet") and not any(_split_of(file, name) for name in known):
            folder = PurePosixPath(file.path).parent.name
            names[folder if folder and folder != "data" else file.stem] = None
    return list(names)


# ------------------------------------------------------------------ installing


@dataclass(frozen=True)
class Installed:
    """An installed data set: its card, its problems by split, and the folder of our own build, if there is one."""

    name: str
    card: str
    problems: dict[str, list[Problem]]
    own: Path | None


def wanted(source: hub.Snapshot, names: Sequence[str], everything: bool) -> dict[str, dict[str, list[hub.HubFile]]]:
    """The files of each data set that is asked for; without names, of all that the published experiments read.

    Raises:
        InputError: a data set is not in the repository.
    """
    chosen = list(names)
    if not chosen:
        joined = [name for name in JOINED if located(source, name)]
        apart = [name for whole, parts in JOINED.items() if whole not in joined for name in parts]
        chosen = [*TRAINING, *joined, *apart, *(others(source) if everything else [])]
    found = {name: located(source, name) for name in chosen}
    missing = [name for name, files in found.items() if not files]
    if missing:
        there = [file.path for file in source.files if file.path.endswith(".parquet")]
        raise InputError(
            f"data published: {', '.join(missing)}: {source.repo} has no such data set at commit {source.commit[:12]}; "
            f"its parquet files are {', '.join(there) or 'none'}"
        )
    return found


def install(root: Path, source: hub.Snapshot, name: str, splits: dict[str, list[hub.HubFile]]) -> Installed:
    """Fetch a data set, check it, and put it at `<root>/<name>`, unless it is there already.

    Raises:
        InputError: it cannot be fetched or is damaged, is not of the published layout, or the folder cannot be written.
    """
    folder, own = root / name, root / f"{name}.own"
    if _is_whole(folder, source, splits):
        card = (folder / "README.md").read_text(encoding="utf-8")
        return Installed(name, card, {split: _read(folder / f"{split}.parquet") for split in splits}, _own(root, name))
    downloads = root / ".downloads"
    fetched = {
        split: [hub.fetch(f"data published: {name}", source, file, downloads) for file in files]
        for split, files in splits.items()
    }
    problems = {split: [p for path in paths for p in _read(path)] for split, paths in fetched.items()}
    ours = folder.is_dir() and not is_published(folder)
    if ours and own.exists():
        raise InputError(f"data published: {own} is in the way of keeping our own build of {name}; move it away")
    if ours:
        folder.rename(own)
    try:
        card = _put(folder, source, name, splits, fetched, problems)
    except BaseException:
        if ours:
            own.rename(folder)
        raise
    for paths in fetched.values():
        for path in paths:
            path.unlink()
    return Installed(name, card, problems, _own(root, name))


def _is_whole(folder: Path, source: hub.Snapshot, splits: dict[str, list[hub.HubFile]]) -> bool:
    """Whether the data set is installed, of this commit, and with the hub's hashes where a split is one file there."""
    try:
        commit = json.loads((folder / MARK).read_text(encoding="utf-8")).get("commit")
        written = [(folder / f"{split}.parquet", files) for split, files in splits.items()]
        return commit == source.commit and all(
            path.is_file() and (len(files) > 1 or hub.is_whole(path, files[0])) for path, files in written
        )
    except (OSError, ValueError, AttributeError):  # not there, or damaged
        return False


def _put(
    folder: Path,
    source: hub.Snapshot,
    name: str,
    splits: dict[str, list[hub.HubFile]],
    fetched: dict[str, list[Path]],
    problems: dict[str, list[Problem]],
) -> str:
    """Write the folder, whole or not at all; returns the card."""
    card = _card(source, name, splits, problems)
    paths = [file.path for files in splits.values() for file in files]
    with whole_folder(folder, replace=is_published(folder)) as partial:
        for split, pieces in fetched.items():
            _write(pieces, partial / f"{split}.parquet")
        (partial / "README.md").write_text(card, encoding="utf-8")
        facts = {"repo": source.repo, "commit": source.commit, "files": paths}
        (partial / MARK).write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return card


def clean(root: Path) -> None:
    """Remove the folder of downloads once everything is installed."""
    shutil.rmtree(root / ".downloads", ignore_errors=True)


def _own(root: Path, name: str) -> Path | None:
    """The folder of our own build of a data set, which may be that of several evaluation sets in one file."""
    joined = next((whole for whole, parts in JOINED.items() if name in parts), name)
    folders = [root / f"{name}.own", *(root / f"{joined}{ending}" for ending in (".own", "") if joined != name)]
    return next((folder for folder in folders if folder.is_dir() and not is_published(folder)), None)


def _read(path: Path, source: str | None = None) -> list[Problem]:
    """The problems of a file, or of one data source in it."""
    rows = [from_row(f"{path.name}: row {n}", row) for n, row in enumerate(read_rows("data published", str(path)))]
    return [problem for of, problem in rows if source in (None, of)]


def _write(paths: Sequence[Path], target: Path) -> None:
    """One file as it is; the shards of one, as one."""
    if len(paths) == 1:
        shutil.copyfile(paths[0], target)
        return
    import pyarrow
    import pyarrow.parquet as parquet

    parquet.write_table(pyarrow.concat_tables([parquet.read_table(path) for path in paths]), target)


def _card(
    source: hub.Snapshot, name: str, splits: dict[str, list[hub.HubFile]], problems: dict[str, list[Problem]]
) -> str:
    lines = [
        f"# {name}",
        "",
        f"The data that was published with RLCSD (arXiv 2606.11709): {source.repo} on the hub, commit {source.commit}.",
        "The files are as they were published; the terms of use are those of that repository.",
        "",
        "| file | problems | on the hub | hash |",
        "|---|---|---|---|",
    ]
    for split, files in splits.items():
        paths, hashes = ", ".join(file.path for file in files), ", ".join(f"`{file.digest}`" for file in files)
        lines.append(f"| {split}.parquet | {len(problems[split])} | {paths} | {hashes} |")
    return "\n".join([*lines, ""])


# ------------------------------------------------------------------ comparing


def differences(installed: Installed, own: Path) -> list[str]:
    """What distinguishes the published data set from our own build of it in `own`: counts, overlap, and band edges."""
    lines = []
    for split, published in installed.problems.items():
        path = own / f"{split}.parquet"
        if not path.is_file():
            continue
        ours = _read(path, installed.name if "+" in own.name and "+" not in installed.name else None)
        lines.append(f"{installed.name}/{split}: {_overlap(ours, published)}")
        lines += [f"  {line}" for line in _edges(ours, published)]
    return lines or [f"{installed.name}: our own build in {own} has none of its files"]


def _overlap(ours: Sequence[Problem], published: Sequence[Problem]) -> str:
    exact = {p.question for p in ours} & {p.question for p in published}
    left, right = ({normalised(p.question) for p in each} for each in (ours, published))
    answers = {normalised(p.question): p.answer for p in ours}
    other = sum(answers.get(normalised(p.question), p.answer) != p.answer for p in published)
    return (
        f"{len(published)} published and {len(ours)} own problems; {len(exact)} in both as written, "
        f"{len(left & right)} normalised; {len(right - left)} only published, {len(left - right)} only own; {other} "
        "with another answer"
    )


def _edges(ours: Sequence[Problem], published: Sequence[Problem]) -> list[str]:
    """For each end of our difficulty band: how many of our problems on the edge itself are published."""
    questions = {normalised(p.question) for p in published}
    rated = [(value, p) for p in ours if isinstance(value := difficulty(p), int | float)]
    if not rated:
        return []
    lines = []
    for word, edge in (("lower", min(value for value, _ in rated)), ("upper", max(value for value, _ in rated))):
        on_edge = [p for value, p in rated if value == edge]
        kept = sum(normalised(p.question) in questions for p in on_edge)
        lines.append(f"{word} edge, difficulty {edge:g}: {kept} of our {len(on_edge)} problems are published")
    given = [value for p in published if isinstance(value := difficulty(p), int | float)]
    if given:
        lines.append(f"difficulties of the published problems: {min(given):g} to {max(given):g}")
    return lines


def difficulty(problem: Problem) -> Any:
    extra = problem.extra.get("extra_info") or {}
    return extra.get("difficulty", problem.extra.get("difficulty"))
