"""The command line: train, eval, data, warmstart, inspect, config.

Wrong input ends in one sentence on stderr and exit code 2; everything else is an error of ours and shows
its traceback.
"""

from __future__ import annotations

import argparse
import errno
import io
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..folders import is_disk_full
from ..run.stop import Interrupted
from .data import add_data_commands

if TYPE_CHECKING:
    from ..config.keys import Key

_OVERRIDES = "key=value overrides, for example method=grpo learning_rate=3e-4; see `rlcsd config show`"


# Errors of a path that the user chose.
_OF_A_PATH = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="rlcsd", description="Reinforcement learning with contrastive self-distillation."
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="command")

    train = commands.add_parser("train", help="train; without arguments the tiny model with rlcsd, in minutes on a CPU")
    train.add_argument("overrides", nargs="*", metavar="key=value", help=_OVERRIDES)
    train.add_argument("--dry-run", action="store_true", help="print the resolved config and the plan, and stop")
    train.add_argument("--resume", type=Path, metavar="RUN", help="resume from the last checkpoint of this run folder")
    train.set_defaults(run=_train)

    evaluate = commands.add_parser("eval", help="held-out accuracy of a model or checkpoint on a task")
    evaluate.add_argument("overrides", nargs="*", metavar="key=value", help=_OVERRIDES + "; the model is model.path=…")
    evaluate.add_argument(
        "--out",
        type=Path,
        help="folder for eval.json, eval.md and samples.jsonl; an interrupted evaluation resumes there",
    )
    evaluate.set_defaults(run=_evaluate)

    inspect = commands.add_parser("inspect", help="the token signal of hints, by kind of token")
    inspect.add_argument("overrides", nargs="*", metavar="key=value", help=_OVERRIDES)
    inspect.add_argument("--problems", type=int, default=32, help="how many training problems to sample groups for")
    inspect.add_argument("--figure", type=Path, help="also draw it to this PNG file")
    inspect.set_defaults(run=_inspect)

    compare = commands.add_parser("compare", help="several runs side by side: a table and a figure")
    compare.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run folders; those with the same label count as seeds"
    )
    compare.add_argument("--by", nargs="+", default=["method.name"], metavar="KEY", help="config keys that label a run")
    compare.add_argument("--figure", type=Path, default=Path("comparison.png"))
    compare.set_defaults(run=_compare)

    add_data_commands(commands.add_parser("data", help="build data sets, and compare them"))

    warm = commands.add_parser("warmstart", help="make the tiny base model again")
    warm.add_argument("recipe", nargs="?", default="kk_tiny", help="kk_tiny (default) or kk_small")
    warm.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the recipe")
    warm.add_argument("--out", type=Path, required=True, help="folder of the finished model")
    warm.add_argument("--device", default="auto")
    warm.set_defaults(run=_warmstart)

    config = commands.add_parser("config", help="list the named choices, show a resolved config, or explain its keys")
    config.add_argument(
        "what", choices=("list", "show", "keys"), help="keys: each key with its type, value and meaning"
    )
    config.add_argument(
        "--only", default="", metavar="PREFIX", help="with keys: those that begin so, for example method."
    )
    config.add_argument("overrides", nargs="*", metavar="key=value", help=_OVERRIDES)
    config.set_defaults(run=_config)
    return top


def _train(arguments: argparse.Namespace) -> None:
    from ..config.load import load, to_yaml
    from ..run import Run
    from ..run.plan import plan
    from ..run.resume import plugins_of, resumed_config
    from .progress import Progress

    if arguments.resume is not None:
        for plugin in plugins_of(arguments.resume):
            print(f"rlcsd: {arguments.resume}/config.yaml names code outside the package: {plugin}", file=sys.stderr)
        config = resumed_config(arguments.resume, arguments.overrides)
    else:
        config = load(arguments.overrides)
    if arguments.dry_run:
        print(to_yaml(config), end="")
        print(plan(config))
        return
    with Progress() as progress:
        run = Run(config, folder=arguments.resume, watch=progress.watch)
        run.execute(resume=arguments.resume is not None)


def _evaluate(arguments: argparse.Namespace) -> None:
    from ..config.load import build_method, load
    from ..engine.base import build_engine
    from ..evaluation import EvaluationFolder, EvaluationSettings, check, evaluate, markdown_table
    from ..tasks.build import build_task

    config = load(["method=grpo", *arguments.overrides, "kl_coefficient=0"])
    folder = EvaluationFolder(arguments.out, config) if arguments.out else None
    task = build_task(config.task)
    if not task.evaluations:
        raise InputError(f"task={task.name}: it has no evaluation sets; give task.evaluations.NAME=FILE")
    engine = build_engine(config, build_method(config))
    settings = EvaluationSettings.of(config)
    check(engine, task, settings)
    if folder is None:
        summaries, _ = evaluate(engine, task, settings)
    else:
        summaries, answered = evaluate(engine, task, settings, folder.open(), folder.keep)
        folder.finish(summaries, answered)
    print(markdown_table(summaries))


def _inspect(arguments: argparse.Namespace) -> None:
    from dataclasses import replace

    from ..config.load import build_method, load
    from ..engine.base import build_engine
    from ..inspection.signals import SignalSettings, draw, hint_signals, markdown
    from ..tasks.build import build_task

    config = load(arguments.overrides)
    method = build_method(config)
    if not method.contrast:
        raise InputError(
            f"method={config.method['name']}: only a contrastive method has a signal to inspect, for example "
            "method=rlcsd"
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
    table = hint_signals(build_engine(config, method), some, method, settings)
    print(f"accuracy {table.accuracy:.3f}, usable rollouts {table.usable:.3f}\n")
    print(markdown(table))
    for target in ("correct", "wrong"):
        errors = table.sign_errors(target)
        if errors is not None:
            print(f"\nconclusion tokens of {target} rollouts: wrong sign in {errors:.1%} of rollouts", end="")
    print()
    if arguments.figure:
        print(f"figure: {draw(table, arguments.figure)}")


def _compare(arguments: argparse.Namespace) -> None:
    from ..report.compare import comparison_table, draw_comparison, read_run

    runs = [read_run(folder, arguments.by) for folder in arguments.runs]
    print(comparison_table(runs))
    print(f"\nfigure: {draw_comparison(runs, arguments.figure)}")


def _warmstart(arguments: argparse.Namespace) -> None:
    from ..engine.local.network import resolve_device
    from ..folders import check_new_folder
    from ..warmstart.recipe import load_recipe
    from ..warmstart.train import warmstart

    check_new_folder(arguments.out)
    names = [arguments.recipe, *arguments.overrides]
    recipe = "kk_tiny" if "=" in names[0] else names.pop(0)
    report = warmstart(
        load_recipe(recipe, names),
        arguments.out,
        resolve_device(arguments.device),
        tell=lambda line: print(line, flush=True),
    )
    if not report.open:
        raise SystemExit(
            f"rlcsd warmstart: the steps ran out before the gates opened ({', '.join(report.shut)}); nothing was saved"
        )


def _config(arguments: argparse.Namespace) -> None:
    from ..config.load import choices, load, to_yaml

    if arguments.what == "list":
        for group, names in choices().items():
            print(f"{group:<8}{'  '.join(name for name in names if name != 'plugin')}")
    elif arguments.what == "show":
        print(to_yaml(load(arguments.overrides)), end="")
    else:
        print("\n".join(map(str, _keys(arguments.overrides, arguments.only))))


def _keys(overrides: Sequence[str], prefix: str) -> list[Key]:
    """The keys of the resolved config, its method and its task that begin with `prefix`."""
    from ..config.keys import keys_of
    from ..config.load import build_method, load
    from ..tasks.build import task_parameters

    config = load(overrides)
    task = task_parameters(config.task)
    keys = [key for key in keys_of(config) if key.name not in ("method", "task")]
    keys += keys_of(build_method(config).config, "method.")
    keys += keys_of(task, "task.") if task is not None else []
    chosen = [key for key in keys if key.name.startswith(prefix)]
    if not chosen:
        raise InputError(f"--only {prefix}: no key begins so; for example --only sampling. or --only method.")
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    logging.getLogger("transformers").setLevel(logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows ASCII alone gets "?" for "×"
    top = parser()
    parsed, rest = top.parse_known_args(arguments)
    if any("=" not in word or word.startswith("-") for word in rest) or (rest and not hasattr(parsed, "overrides")):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:  # overrides after an option: argparse takes positional words in one piece only
        parsed.overrides = [*parsed.overrides, *rest]
    try:
        parsed.run(parsed)
    except InputError as error:
        print(f"rlcsd: {error}", file=sys.stderr)
        return 2
    except Interrupted as stopped:
        print(f"rlcsd: {stopped}", file=sys.stderr)
        return 128 + stopped.number
    except KeyboardInterrupt:
        print("rlcsd: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        _abandon_output()
        return 128 + signal.SIGPIPE if hasattr(signal, "SIGPIPE") else 1
    except Exception as error:
        sentence = _known_trouble(error)
        if sentence is None:
            raise
        print(f"rlcsd: {sentence}", file=sys.stderr)
        return 2
    return _flushed()


def _known_trouble(error: Exception) -> str | None:
    """One sentence about an error of the machine, or None for one of ours."""
    if is_disk_full(error):
        return "no space is left where the output goes; free some, then resume with `rlcsd train --resume RUN`"
    if isinstance(error, OSError) and error.errno in _OF_A_PATH and error.filename:
        return f"{error.filename}: cannot be used as a path here ({error.strerror}); choose another"
    text = str(error).lower()
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        return (
            "out of memory; lower engine.micro_batch_tokens, engine.score_tokens or engine.sample_gib, or set "
            "model.gradient_checkpointing=true (`rlcsd train --dry-run` estimates the need)"
        )
    return None


def _flushed() -> int:
    """Exit code 0 once everything that was printed has been taken."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _abandon_output()
    except OSError as error:
        _abandon_output()
        print(f"rlcsd: the output could not be written ({error.strerror})", file=sys.stderr)
        return 2
    return 0


def _abandon_output() -> None:
    """Nobody reads the output any more: what is still in its buffer goes nowhere, without a complaint at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
