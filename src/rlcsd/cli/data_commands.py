"""The command line's `data`: build the published sets and puzzles of one's own, and look for overlaps."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Any

from ..errors import InputError


def add_data_command(commands: Any) -> None:
    """Add `rlcsd data`."""
    data = commands.add_parser("data", help="build data sets, and compare them")
    kinds = data.add_subparsers(dest="kind", required=True, metavar="kind")

    kk = kinds.add_parser("kk", help="Knights & Knaves puzzles with unique solutions")
    kk.add_argument(
        "--out", type=Path, required=True, help="new folder of jsonl splits; with --format verl the root of the layout"
    )
    kk.add_argument(
        "--format", choices=("jsonl", "verl"), default="jsonl", help="plain splits, or the published parquet layout"
    )
    kk.add_argument("--sizes", default="4,5,6,7,8", help="people per puzzle in train and test (default 4,5,6,7,8)")
    kk.add_argument("--unseen", default="9,10,11", help="sizes for the test split alone (default 9,10,11)")
    kk.add_argument("--train", type=int, default=900, help="training puzzles per size (default 900)")
    kk.add_argument("--test", type=int, default=100, help="test and validation puzzles per size (default 100)")
    kk.add_argument("--wording", choices=("varied", "plain"), default="varied")
    kk.add_argument("--seed", type=int, default=0)
    kk.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    kk.set_defaults(run=_kk)

    deepmath = kinds.add_parser("deepmath", help="DeepMath-103K in one difficulty band, in the published layout")
    deepmath.add_argument("--band", required=True, help="LOW_HIGH, both included; published: 5_7, 6_8, 7_10")
    deepmath.add_argument("--root", type=Path, default=Path("data/verl"))
    deepmath.add_argument(
        "--source", help="hub:owner/name or a file with DeepMath's columns (default hub:zwhe99/DeepMath-103K)"
    )
    deepmath.set_defaults(run=_deepmath)

    competitions = kinds.add_parser("competitions", help="AMC23, AIME24 and AIME25, in the published layout")
    competitions.add_argument("--root", type=Path, default=Path("data/verl"))
    competitions.add_argument(
        "--source", nargs="*", default=[], metavar="NAME=SOURCE", help="another source for a set, or a further set"
    )
    competitions.set_defaults(run=_competitions)

    published = kinds.add_parser("published", help="the data sets published with the paper, from the hub")
    published.add_argument("names", nargs="*", metavar="NAME", help="data sets (default: what the experiments read)")
    published.add_argument("--all", action="store_true", help="also every other data set of the repository")
    published.add_argument("--root", type=Path, default=Path("data/verl"))
    published.add_argument("--repo", default=None, help="another repository of the same layout (default Leyiii/RLCSD)")
    published.add_argument("--revision", default=None, help="a commit, branch or tag (default: the newest commit)")
    published.set_defaults(run=_published)

    overlap = kinds.add_parser("overlap", help="which evaluation problems are also in a task's training set")
    overlap.add_argument(
        "overrides", nargs="*", metavar="key=value", help="the task, for example task=math_deepmath model=qwen3_4b"
    )
    overlap.set_defaults(run=_overlap)


def _sizes(option: str, text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise InputError(f"{option} {text}: sizes read like 4,5,6") from None
    if any(not 2 <= size <= 11 for size in sizes):
        raise InputError(f"{option} {text}: a puzzle has 2 to 11 people")
    return list(dict.fromkeys(sizes))


def _kk(arguments: argparse.Namespace) -> None:
    from ..tasks.knights_and_knaves.puzzle_data import PuzzleRequest, build_layout, build_splits

    for option, value in (
        ("--train", arguments.train),
        ("--test", arguments.test),
        ("--processes", arguments.processes),
    ):
        if value < 1:
            raise InputError(f"{option} {value}: must be at least 1")
    sizes, unseen = _sizes("--sizes", arguments.sizes), _sizes("--unseen", arguments.unseen)
    if not sizes:
        raise InputError(f"--sizes {arguments.sizes}: at least one size is needed")
    if set(sizes) & set(unseen):
        raise InputError(f"--unseen {arguments.unseen}: {min(set(sizes) & set(unseen))} is among --sizes as well")
    a = arguments
    request = PuzzleRequest(sizes, unseen, a.train, a.test, a.wording, a.seed, a.processes)
    if a.format == "jsonl":
        print(build_splits(a.out, request))
    else:
        print("\n".join(build_layout(a.out, request)))


def _deepmath(arguments: argparse.Namespace) -> None:
    from ..tasks.math_data import DEEPMATH, build_deepmath

    print(build_deepmath(arguments.root, arguments.band, arguments.source or DEEPMATH))


def _competitions(arguments: argparse.Namespace) -> None:
    from ..tasks.math_data import COMPETITIONS, build_competitions

    sources = dict(COMPETITIONS)
    for given in arguments.source:
        name, equals, source = given.partition("=")
        if not (equals and source) or not re.fullmatch(r"[\w.-]+", name):
            raise InputError(f"--source {given}: reads NAME=SOURCE, for example aime26=aime26.jsonl")
        sources[name] = source
    print(build_competitions(arguments.root, sources))


def _published(arguments: argparse.Namespace) -> None:
    from ..tasks import hub
    from ..tasks.published import REPO, clean, differences, install, wanted

    source = hub.snapshot("data published", arguments.repo or REPO, arguments.revision)
    found = wanted(source, arguments.names, arguments.all)
    for name, splits in found.items():
        installed = install(arguments.root, source, name, splits)
        print(installed.card)
        if installed.own is not None:
            print("\n".join(["Differences to our own build:", *differences(installed, installed.own), ""]))
    clean(arguments.root)


def _overlap(arguments: argparse.Namespace) -> None:
    from ..config.load import load
    from ..tasks.registry import build_task
    from ..tasks.task import overlaps

    task = build_task(load(arguments.overrides).task)
    if not task.evaluations:
        raise InputError(f"task={task.name}: it has no evaluation sets to compare with its training set")
    for overlap in overlaps(task.train, task.evaluations):
        print(overlap)
