"""The command line: train, eval, show, data, warmstart, inspect, compare, config.

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
from contextlib import closing, suppress
from pathlib import Path
from typing import NoReturn

from ..errors import InputError
from ..experiments.drift_demo import add_demo_command
from ..run.stop import Interrupted
from ..storage import is_disk_full
from .config_command import add_config_command
from .data_commands import add_data_commands
from .model_commands import add_chat_command, add_push_command
from .report_commands import add_compare_command, add_inspect_command, add_show_command
from .train_commands import OVERRIDES, add_sweep_command, add_train_command

# Errors of a path that the user chose.
_OF_A_PATH = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR)


class _Parser(argparse.ArgumentParser):
    """Complains in one sentence, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"rlcsd: {message}; see `{self.prog} --help`\n")


def parser() -> argparse.ArgumentParser:
    top = _Parser(prog="rlcsd", description="Reinforcement learning with contrastive self-distillation.")
    package = sys.modules[__name__.partition(".")[0]]
    top.add_argument("--version", action="version", version=f"rlcsd {package.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="command")

    add_train_command(commands)
    add_sweep_command(commands)
    add_chat_command(commands)
    add_push_command(commands)

    evaluate = commands.add_parser("eval", help="held-out accuracy of a model or checkpoint on a task")
    evaluate.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES + "; the model is model.path=…")
    evaluate.add_argument(
        "--out",
        type=Path,
        help="folder for eval.json, eval.md and samples.jsonl; an interrupted evaluation resumes there",
    )
    evaluate.set_defaults(run=_evaluate)

    add_inspect_command(commands.add_parser("inspect", help="the token signal of hints, by kind of token"))

    add_show_command(commands.add_parser("show", help="a page to look at a run's rollouts, token by token"))

    add_compare_command(commands.add_parser("compare", help="several runs side by side: tables and a figure"))

    add_data_commands(commands.add_parser("data", help="build data sets, and compare them"))

    add_demo_command(commands)

    warm = commands.add_parser("warmstart", help="make a tiny base model again")
    warm.add_argument("recipe", nargs="?", default="kk_tiny", help="kk_tiny (default), kk_small or roll_call")
    warm.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the recipe")
    warm.add_argument("--out", type=Path, required=True, help="folder of the finished model")
    warm.add_argument("--device", default="auto")
    warm.set_defaults(run=_warmstart)

    add_config_command(commands)
    return top


def _evaluate(arguments: argparse.Namespace) -> None:
    from ..config.load import build_method
    from ..engine.interface import build_engine
    from ..engine.local.local_engine import with_threads
    from ..evaluation import Answered, EvaluationFolder, EvaluationSettings, check, evaluate, markdown_table
    from ..run.counting import counting
    from ..run.folder import evaluated_config
    from ..tasks.registry import build_task

    config = evaluated_config(arguments.overrides)
    folder = EvaluationFolder(arguments.out, config) if arguments.out else None
    task = build_task(config.task)
    if not task.evaluations:
        raise InputError(f"task={task.name}: it has no evaluation sets; give task.evaluations.NAME=FILE")
    settings = EvaluationSettings.of(config)
    with closing(build_engine(with_threads(config), build_method(config))) as engine:
        check(engine, task, settings)
        done = folder.open() if folder is not None else []
        total = max(0, sum(map(len, task.evaluations.values())) - len(done))
        with counting("problems", total) as count:

            def keep(batch: Sequence[Answered]) -> None:
                if folder is not None:
                    folder.keep(batch)
                count(len(batch))

            summaries, answered = evaluate(engine, task, settings, done, keep)
    if folder is not None:
        folder.finish(summaries, answered)
    print(markdown_table(summaries))


def _warmstart(arguments: argparse.Namespace) -> None:
    from ..engine.local.model import resolve_device
    from ..experiments.recipe import load_recipe
    from ..experiments.warmstart import warmstart
    from ..storage import check_new_folder

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
    loose = getattr(parsed, "free_words", False)  # a question may be any words
    strange = [word for word in rest if word.startswith("-") or not ("=" in word or loose)]
    if strange or (rest and not hasattr(parsed, "overrides")):
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
    except KeyboardInterrupt as stopped:
        print(f"rlcsd: {str(stopped) or 'interrupted'}", file=sys.stderr)
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
