"""`rlcsd inspect`: where the token signal of hints falls, measured on a model or read from a run's rollouts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .train import OVERRIDES

if TYPE_CHECKING:
    from ..inspection.signals import SignalTable
    from ..report.recorded import Recorded

_TEMPLATES = ("neutral", "verbose", "terse")


def add_inspect_command(inspect: argparse.ArgumentParser) -> None:
    inspect.add_argument(
        "overrides",
        nargs="*",
        metavar="RUN | key=value",
        help=f"a run folder, whose recorded rollouts are read (any method), or {OVERRIDES}",
    )
    inspect.add_argument("--problems", type=int, default=32, help="how many training problems to sample groups for")
    inspect.add_argument("--templates", action="store_true", help="also with each of the three wordings around a hint")
    inspect.add_argument("--figure", type=Path, metavar="FILE", help="also draw it: a PNG, and an SVG beside it")
    inspect.set_defaults(run=_inspect)


def _inspect(arguments: argparse.Namespace) -> None:
    figure: Path | None = arguments.figure
    if figure is not None and (figure.suffix != ".png" or not figure.parent.is_dir()):
        raise InputError(f"--figure {figure}: name a file that ends in .png, in a folder that is there")
    if arguments.problems < 1:
        raise InputError(f"--problems {arguments.problems}: must be at least 1")
    folders = [word for word in arguments.overrides if "=" not in word]
    if len(folders) > 1 or (folders and len(arguments.overrides) > 1):
        raise InputError(f"{' '.join(arguments.overrides)}: give one run folder, or overrides of the form key=value")
    if folders and arguments.templates:
        raise InputError(f"--templates: needs a model to ask; use model.path={folders[0]} instead of the run folder")
    tables = _recorded(Path(folders[0])) if folders else _measured(arguments)
    table = next(iter(tables.values()))
    _print(table, tables)
    if figure is not None and len(table.kind):
        from ..inspection.signals import means
        from ..report.signals import draw_signals

        print(f"figure: {draw_signals(means(table), figure)}")


def _print(table: SignalTable, tables: dict[str, SignalTable]) -> None:
    from ..inspection.division import OWN, QUIET, SHARED, by_k, by_template, called, division, explanation
    from ..inspection.signals import markdown
    from ..inspection.token_kinds import KINDS

    print(f"accuracy {table.accuracy:.3f}, usable rollouts {table.usable:.3f}")
    if not len(table.kind):
        print(f"\n{explanation(table)}")
        return
    print(f"\n{markdown(table)}\n\nHow the signal divides, kinds by words:\n\n{division(table, table.kind, KINDS)}")
    shared = called(table)
    if shared is None:
        print("\nWithout wrong hints nothing tells what a hint does as such from what a correct one does.")
        return
    print("\nThe same without a list of words (shared: at least half of the larger gap is common to h_c and h_w):\n")
    print(division(table, shared, (SHARED, OWN, QUIET)))
    if text := by_k(table):
        print(f"\nBy the number of wrong hints, over rollouts that have two or more:\n\n{text}")
    if len(tables) > 1:
        print(f"\nBy the wording around the hint:\n\n{by_template(tables)}")
    for target in ("correct", "wrong"):
        errors = table.sign_errors(target)
        if errors is not None:
            print(f"\nconclusion tokens of {target} rollouts: wrong sign in {errors:.1%} of rollouts", end="")
    print()


def _measured(arguments: argparse.Namespace) -> dict[str, SignalTable]:
    """The signals of the config's model, sampled and scored now; by template if that was asked for."""
    from contextlib import closing
    from dataclasses import replace

    from ..config.load import build_method, load
    from ..engine.base import build_engine
    from ..inspection.signals import SignalSettings, sample_groups, score_groups
    from ..run.checkpoint import with_newest_checkpoint
    from ..tasks.build import build_task

    config = with_newest_checkpoint(load(arguments.overrides))
    method = build_method(config)
    if not method.needs_contrast:
        raise InputError(
            f"method={config.method['name']}: it asks for no wrong hints; measure the same model and task with a "
            "contrastive method, for example method=rlcsd, or give a run folder"
        )
    task = build_task(config.task)
    settings = SignalSettings(
        config.group_size,
        config.sampling.settings(),
        config.model.thinking_student,
        config.model.thinking_teacher,
        config.max_teacher_tokens,
        config.seed,
    )
    some = replace(task, train=task.train[: arguments.problems])
    own = method.config.template
    names = [own, *(name for name in _TEMPLATES if name != own)] if arguments.templates else [own]
    methods = {name: type(method)(method.config.model_copy(update={"template": name})) for name in names}
    with closing(build_engine(config, method)) as engine:
        groups = sample_groups(engine, some, method, settings)
        return {name: score_groups(engine, groups, some, methods[name], settings) for name in names}


def _recorded(folder: Path) -> dict[str, SignalTable]:
    """The signals that a run has recorded, over all its steps."""
    import numpy as np

    from ..inspection.signals import SignalTable
    from ..inspection.token_kinds import kinds_of
    from ..report.recorded import read_groups

    rollouts = [rollout for group in read_groups(folder) for rollout in group.rollouts]
    asked = [one for one in rollouts if "correct_gap" in one.signals]
    if not asked:
        raise InputError(
            f"{folder}: no teacher was asked about any recorded rollout; measure its model instead: "
            f"`rlcsd inspect model.path={folder} method=rlcsd`"
        )
    names = {"correct_gain": "correct_gap", "wrong_gain": "wrong_gap", "contrast": "contrast"}
    present = {name: key for name, key in names.items() if all(key in one.signals for one in asked)}

    def spans(one: Recorded) -> list[tuple[int, int]]:
        return [(int(start), int(end)) for start, end in one.spans]

    table = SignalTable(
        np.array([kind for one in asked for kind in kinds_of(one.text, spans(one))]),
        np.repeat([bool(one.facts["correct"]) for one in asked], [len(one.spans) for one in asked]),
        np.repeat(np.arange(len(asked)), [len(one.spans) for one in asked]),
        {name: np.concatenate([one.signals[key] for one in asked]) for name, key in present.items()},
        float(np.mean([one.facts["correct"] for one in rollouts])),
        len(asked) / len(rollouts),
        len(rollouts),
    )
    return {"recorded": table}
