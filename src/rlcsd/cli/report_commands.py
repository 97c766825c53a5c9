"""`rlcsd show`, `rlcsd compare` and `rlcsd inspect`: what run folders contain, and the token signal of hints."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ..errors import InputError
from .train_commands import OVERRIDES

if TYPE_CHECKING:
    from ..inspection.signals import SignalTable
    from ..report.rollout_reader import LoggedRollout


def add_show_command(commands: Any) -> None:
    """Add `rlcsd show`: a page of a run's recorded rollouts."""
    show = commands.add_parser("show", help="a page to look at a run's rollouts, token by token")
    show.add_argument("folder", type=Path, metavar="RUN", help="a run folder, finished or still going")
    show.add_argument("--out", type=Path, metavar="FILE", help="the page; by default rollouts.html in the run folder")
    show.add_argument("--steps", metavar="FIRST:LAST", help="only these steps, for example 1:20 or 100:")
    show.add_argument("--open", action="store_true", help="open the page in the browser")
    show.set_defaults(run=_show)


def _show(arguments: argparse.Namespace) -> None:
    from ..report.page import write_page

    target: Path = arguments.out or arguments.folder / "rollouts.html"
    steps = None if arguments.steps is None else _steps(arguments.steps)
    if arguments.out and (target.is_dir() or not target.parent.is_dir()):
        raise InputError(f"--out {target}: not a file in a folder that is there; name one, for example page.html")
    content = write_page(arguments.folder, target, steps)
    print(f"{target}: {content}")
    if arguments.open:
        import webbrowser

        webbrowser.open(target.resolve().as_uri())


def _steps(text: str) -> tuple[int, int]:
    """First and last step of `FIRST:LAST`, either of which may be left out."""
    first, colon, last = text.partition(":")
    try:
        steps = (int(first or 1), int(last) if last else 2**62 if colon else int(first))
    except ValueError:
        raise InputError(f"--steps {text}: give a step or two with a colon between, for example 1:20") from None
    if steps[0] > steps[1]:
        raise InputError(f"--steps {text}: the first step is after the last")
    return steps


def add_compare_command(commands: Any) -> None:
    """Add `rlcsd compare`: several runs as tables and a figure."""
    compare = commands.add_parser("compare", help="several runs side by side: tables and a figure")
    compare.add_argument("runs", nargs="*", type=Path, metavar="PARENT|RUN", help="run folders, or folders of runs")
    compare.add_argument("--published", action="store_true", help="the authors' figures, with those of the runs below")
    compare.add_argument(
        "--by",
        nargs="+",
        metavar="KEY",
        help="config keys that label a run; runs of one label must differ in nothing but the seed (default: "
        "method.name, and model and task where they differ)",
    )
    compare.add_argument("--baseline", metavar="LABEL", help="also the paired differences to these runs, with p-values")
    compare.add_argument(
        "--pair",
        choices=("auto", "seed", "problem"),
        default="auto",
        help="how runs are paired; auto: by seed from four common seeds on, otherwise by problem",
    )
    compare.add_argument(
        "--table",
        choices=("runs", "results", "hints"),
        default="runs",
        help="runs: before and after; results: models and methods by evaluation set; hints: methods by source of hints",
    )
    compare.add_argument("--format", choices=("markdown", "csv", "latex"), default="markdown")
    compare.add_argument("--figure", type=Path, metavar="FILE", help="a PNG, and an SVG beside it")
    compare.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> None:
    from ..report.comparison import comparison, differences, hint_sources, results, written
    from ..report.figures import draw_comparison
    from ..report.run_results import read_runs

    if arguments.published:
        _published(arguments)
        return
    if not arguments.runs:
        raise InputError("compare: at least one run is needed, or --published alone")
    figure = _figure(arguments)
    runs = read_runs(arguments.runs, arguments.by)
    make = {"runs": comparison, "results": results, "hints": hint_sources}[arguments.table]
    tables = [make(runs)]
    if arguments.baseline is not None:
        tables.append(differences(runs, arguments.baseline, arguments.pair))
    print("\n\n".join(written(table, arguments.format) for table in tables))
    if arguments.format == "csv":  # which has no place for notes
        for note in dict.fromkeys(note for table in tables for note in table.notes):
            print(note, file=sys.stderr)
    if figure is not None:
        print(f"figure: {draw_comparison(runs, figure)}", file=sys.stderr)


def _published(arguments: argparse.Namespace) -> None:
    from ..report.published import published_tables
    from ..report.run_results import find_runs

    if arguments.format != "markdown" or arguments.baseline or arguments.figure or arguments.table != "runs":
        raise InputError("--published: it writes Markdown tables of its own; leave --format, --baseline, … out")
    print(published_tables(find_runs(arguments.runs)))


def _figure(arguments: argparse.Namespace) -> Path | None:
    figure: Path | None = arguments.figure
    if figure is not None and (figure.suffix != ".png" or not figure.parent.is_dir()):
        raise InputError(f"--figure {figure}: name a file that ends in .png, in a folder that is there")
    return figure


def add_inspect_command(commands: Any) -> None:
    """Add `rlcsd inspect`: the token signal of hints, measured on a model or read from a run's rollouts."""
    inspect = commands.add_parser("inspect", help="the token signal of hints, by kind of token")
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
    figure = _figure(arguments)
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
        from ..report.figures import draw_signals

        print(f"figure: {draw_signals(table.means(), figure)}")


def _print(table: SignalTable, tables: dict[str, SignalTable]) -> None:
    from ..inspection import signal_tables as tables_of
    from ..inspection.signals import KINDS

    print(f"accuracy {table.accuracy:.3f}, usable rollouts {table.usable:.3f}")
    if not len(table.kind):
        print(f"\n{tables_of.why_no_signal(table)}")
        return
    shares = tables_of.share_table(table, table.kind, KINDS)
    print(f"\n{tables_of.mean_table(table)}\n\nHow the signal divides, kinds by words:\n\n{shares}")
    kinds = tables_of.shared_or_own(table)
    if kinds is None:
        print("\nWithout wrong hints nothing tells what a hint does as such from what a correct one does.")
        return
    print("\nThe same without a list of words (shared: at least half of the larger gap is common to h_c and h_w):\n")
    print(tables_of.share_table(table, kinds, (tables_of.SHARED, tables_of.OWN, tables_of.QUIET)))
    if text := tables_of.table_by_k(table):
        print(f"\nBy the number of wrong hints, over rollouts that have two or more:\n\n{text}")
    if len(tables) > 1:
        print(f"\nBy the wording around the hint:\n\n{tables_of.table_by_template(tables)}")
    for target in ("correct", "wrong"):
        errors = table.sign_errors(target)
        if errors is not None:
            print(f"\nconclusion tokens of {target} rollouts: wrong sign in {errors:.1%} of rollouts", end="")
    print()


def _measured(arguments: argparse.Namespace) -> dict[str, SignalTable]:
    """Signals of groups that the config's model samples now, by the name of the hint template."""
    from contextlib import closing
    from dataclasses import replace

    from ..config.load import build_method, load
    from ..engine.interface import build_engine
    from ..inspection.signals import SignalSettings, sample_groups, score_groups
    from ..run.folder import with_newest_checkpoint
    from ..tasks.registry import build_task

    config = with_newest_checkpoint(load(arguments.overrides))
    method = build_method(config)
    if not method.needs_contrast:
        raise InputError(
            f"method={config.method.name}: it asks for no wrong hints; measure the same model and task with a "
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
    templates = get_args(type(method.config).model_fields["template"].annotation)
    names = [own, *(name for name in templates if name != own)] if arguments.templates else [own]
    methods = {name: type(method)(method.config.model_copy(update={"template": name})) for name in names}
    with closing(build_engine(config, method)) as engine:
        groups = sample_groups(engine, some, method, settings)
        return {name: score_groups(engine, groups, some, methods[name], settings) for name in names}


def _recorded(folder: Path) -> dict[str, SignalTable]:
    """Signals of all the rollouts that a run has recorded."""
    import numpy as np

    from ..inspection.signals import SIGNALS, SignalTable, kinds_of
    from ..report.rollout_reader import read_groups

    rollouts = [rollout for group in read_groups(folder) for rollout in group.rollouts]
    asked = [one for one in rollouts if "teacher_gap" in one.signals]
    if not asked:
        raise InputError(
            f"{folder}: no teacher was asked about any recorded rollout; measure its model instead: "
            f"`rlcsd inspect model.path={folder} method=rlcsd`"
        )
    present = [name for name in SIGNALS if all(name in one.signals for one in asked)]

    def spans(one: LoggedRollout) -> list[tuple[int, int]]:
        return [(int(start), int(end)) for start, end in one.spans]

    table = SignalTable(
        np.array([kind for one in asked for kind in kinds_of(one.text, spans(one))]),
        np.repeat([bool(one.facts["correct"]) for one in asked], [len(one.spans) for one in asked]),
        np.repeat(np.arange(len(asked)), [len(one.spans) for one in asked]),
        {name: np.concatenate([one.signals[name] for one in asked]) for name in present},
        float(np.mean([one.facts["correct"] for one in rollouts])),
        len(asked) / len(rollouts),
        len(rollouts),
    )
    return {"recorded": table}
