"""The command line `rlcsd`: parse the arguments, run the command, and turn errors into exit codes.

Wrong input ends in one sentence on stderr and exit code 2. Any other exception is a bug of this package and shows its
traceback.
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
from typing import NoReturn

from ..errors import InputError, is_out_of_memory
from ..plugins import add_experiment_commands
from ..run.stop import Interrupted
from ..storage import is_disk_full
from .config_command import add_config_command
from .data_commands import add_data_command
from .model_commands import add_chat_command, add_eval_command, add_export_command, add_push_command
from .report_commands import add_compare_command, add_inspect_command, add_show_command
from .train_commands import add_doctor_command, add_sweep_command, add_train_command

# Errors of a path that the user chose.
_PATH_ERRORS = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR)


class _Parser(argparse.ArgumentParser):
    """Reports an error of the arguments in one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"rlcsd: {message}; see `{self.prog} --help`\n")


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; each command sets `run`, the function that takes the parsed arguments.

    It returns None, or an exit code.
    """
    top = _Parser(prog="rlcsd", description="Reinforcement learning with contrastive self-distillation.")
    package = sys.modules[__name__.partition(".")[0]]
    top.add_argument("--version", action="version", version=f"rlcsd {package.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="command")
    for add_command in (
        add_train_command,
        add_sweep_command,
        add_doctor_command,
        add_chat_command,
        add_push_command,
        add_export_command,
        add_eval_command,
        add_inspect_command,
        add_show_command,
        add_compare_command,
        add_data_command,
        add_experiment_commands,
        add_config_command,
    ):
        add_command(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    logging.getLogger("transformers").setLevel(logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows ASCII alone gets "?" for "×"
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    top = parser()
    parsed, rest = top.parse_known_args(arguments)
    loose = getattr(parsed, "free_words", False)  # a question may be any words
    strange = [word for word in rest if word.startswith("-") or not ("=" in word or loose)]
    if strange or (rest and not hasattr(parsed, "overrides")):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:  # overrides after an option: argparse takes positional words in one piece only
        parsed.overrides = [*parsed.overrides, *rest]
    try:
        code = parsed.run(parsed)
    except InputError as error:
        for line in str(error).splitlines():
            print(f"rlcsd: {line}", file=sys.stderr)
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
        sentence = _machine_error(error)
        if sentence is None:
            raise
        print(f"rlcsd: {sentence}", file=sys.stderr)
        return 2
    return _flushed() or int(code or 0)


def _machine_error(error: Exception) -> str | None:
    """One sentence about a full disk, an unusable path or too little memory; None for any other error."""
    if is_disk_full(error):
        return "no space is left where the output goes; free some, then resume with `rlcsd train --resume RUN`"
    if isinstance(error, OSError) and error.errno in _PATH_ERRORS and error.filename:
        return f"{error.filename}: cannot be used as a path here ({error.strerror}); choose another"
    if is_out_of_memory(error):
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
