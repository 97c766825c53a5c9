"""`rlcsd eval`, `rlcsd chat`, `rlcsd push` and `rlcsd export`: measure, ask, upload and write a model."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError
from .train_commands import OVERRIDES


def add_eval_command(commands: Any) -> None:
    """Add `rlcsd eval`."""
    evaluate = commands.add_parser("eval", help="held-out accuracy of a model or checkpoint on a task")
    evaluate.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES + "; the model is model.path=…")
    evaluate.add_argument(
        "--out",
        type=Path,
        help="folder for eval.json, eval.md and samples.jsonl; an interrupted evaluation resumes there",
    )
    evaluate.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> None:
    from ..evaluation import markdown_table
    from ..run.evaluate import evaluate, print_warning

    print(markdown_table(evaluate(None, arguments.overrides, out=arguments.out, warn=print_warning)))


def add_chat_command(commands: Any) -> None:
    """Add `rlcsd chat`."""
    chat = commands.add_parser("chat", help="ask a run's base and its trained model, side by side")
    chat.add_argument("run_folder", type=Path, metavar="RUN")
    chat.add_argument(
        "overrides",
        nargs="*",
        metavar="question or key=value",
        help="one question (without it, questions are read line by line), and changes to the run's config",
    )
    chat.add_argument("--step", type=int, help="the checkpoint of this step; by default the newest")
    chat.add_argument("--problem", metavar="SET:N", help="problem N (from 0) of one of the run's evaluation sets")
    chat.add_argument("--json", action="store_true", help="one JSON object for each question")
    chat.set_defaults(run=_chat, free_words=True)


def _chat(arguments: argparse.Namespace) -> None:
    from ..run.chat import Chat
    from ..run.evaluate import print_warning

    overrides = [word for word in arguments.overrides if _is_override(word)]
    questions = [word for word in arguments.overrides if not _is_override(word)]
    if len(questions) > 1:
        raise InputError(f"{questions[1]!r}: one question at a time; put it in quotes, or pipe several, a line each")
    question = questions[0] if questions else None
    if question is not None and arguments.problem is not None:
        raise InputError(f"--problem {arguments.problem}: give either a question or a problem")
    chat = Chat(arguments.run_folder, overrides, arguments.step, arguments.problem, warn=print_warning)
    for asked in [question] if question is not None else [None] if arguments.problem else _questions():
        answers = chat.ask(asked)
        if arguments.json:
            print(json.dumps(answers.as_dict(), ensure_ascii=False), flush=True)
        else:
            answers.show(with_question=question is None and not sys.stdin.isatty())


def _is_override(word: str) -> bool:
    """Whether a word is `key=value` of a config and no question."""
    from ..config.schema import Config

    match = re.match(r"([a-z_]+)[\w.]*=", word)
    return match is not None and match[1] in Config.model_fields


def _questions() -> Iterator[str]:
    """Lines of the terminal until an empty one, or all lines of a file or pipe."""
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin if line.strip())
        return
    print("A question a line; an empty line ends.", file=sys.stderr)
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            return
        if not line:
            return
        yield line


def add_push_command(commands: Any) -> None:
    """Add `rlcsd push`."""
    push = commands.add_parser("push", help="upload a run's checkpoint to the hub, with a model card")
    push.add_argument("run_folder", type=Path, metavar="RUN")
    push.add_argument("repository", metavar="owner/name")
    push.add_argument("--step", type=int, help="the checkpoint of this step; by default the newest")
    push.add_argument("--private", action="store_true", help="make the repository private if it is new")
    push.add_argument(
        "--dry-run", action="store_true", help="print the files and the model card that would be uploaded, and stop"
    )
    push.set_defaults(run=_push)


def _push(arguments: argparse.Namespace) -> None:
    from ..run.push import plan_push, push

    if arguments.dry_run:
        print(plan_push(arguments.run_folder, arguments.repository, arguments.step), end="")
        return
    print(push(arguments.run_folder, arguments.repository, arguments.step, arguments.private))


def add_export_command(commands: Any) -> None:
    """Add `rlcsd export`."""
    export = commands.add_parser("export", help="write a run's checkpoint as a plain model folder, adapters merged")
    export.add_argument("source", type=Path, metavar="RUN", help="folder of a run, or of a model or adapter")
    export.add_argument("--out", type=Path, required=True, help="new folder for weights, configs and tokenizer")
    export.add_argument("--step", type=int, help="the checkpoint of this step; by default the newest")
    export.add_argument("--dtype", choices=("float32", "bfloat16"), help="by default the run's export_dtype")
    export.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> None:
    from ..run.push import export

    dtype = export(arguments.source, arguments.out, arguments.step, arguments.dtype)
    print(f"{arguments.out}: {dtype}")
