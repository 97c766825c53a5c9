"""The numbers of docs/learn.md: rlcsd_in_one_file.py on the tiny model, measured.

    python examples/learn.py tokens       # ten tokens of a response, and what each stage makes of them
    python examples/learn.py settings     # what each setting changes, on the same responses
    python examples/learn.py exercises    # what the one-line changes of the exercises do to the signal
    python examples/learn.py puzzles      # writes puzzles.jsonl
    python examples/learn.py notebook     # runs learn.ipynb again, in place; needs nbclient and ipykernel

With `--smoke` the sizes are so small that the figures mean nothing; nothing is written.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers

from rlcsd.config.load import load
from rlcsd.decoding import token_offsets
from rlcsd.inspection.signals import kinds_of
from rlcsd.prompts import question_text
from rlcsd.tasks.registry import build_task

HERE = Path(__file__).parent
SOURCE = (HERE / "rlcsd_in_one_file.py").read_text(encoding="utf-8")

# Name: a part of a line of the file, and what replaces it.
EXERCISES = {
    "as it is": ("", ""),
    "no contrast": (
        "contrast(torch.stack([next(scores) for _ in r.hints]))",
        "torch.stack([next(scores) for _ in r.hints])[0] - r.old",
    ),
    "one wrong hint": ("K = 4", "K = 1"),
    "own response among the hints": ("[other for other in group if other is not rollout]", "group"),
    "other words around wrong hints": (
        'f"Reference Solution:',
        "f\"{'Reference Solution' if hint.correct else 'Wrong attempt'}:",
    ),
    "no anchor": ("torch.where(advantage > 0, shifted.clamp(min=0), shifted.clamp(max=0))", "shifted"),
    "no threshold": ("DELTA = 0.02", "DELTA = 0.0"),
    "one mean": (
        "ETA / count.clamp(min=1), 1 / (len(selected) - count).clamp(min=1)",
        "1 / len(selected), 1 / len(selected)",
    ),
    "GRPO": ("LAM = 0.5", "LAM = 0.0"),
}  # fmt: skip
RESCORED = ("no contrast", "one wrong hint", "own response among the hints", "other words around wrong hints")
SIZES = {"tokens": 8, "settings": 16, "exercises": 16}  # puzzles, of eight responses each
SMOKE = 0, 2  # the first puzzle, and how many
Scored = tuple[list[Any], torch.Tensor, torch.Tensor]
TRIED = [
    *(("TAU", 0.002), ("TAU", 0.2), ("TAU", 2.0), ("LAM", 0.1), ("LAM", 1.0), ("LAM", 2.0)),
    *(("DELTA", 0.0), ("DELTA", 0.1), ("DELTA", 0.4), ("BOUND", 0.25), ("ETA", 0.5), ("ETA", 2.0)),
]


def changed(name: str = "as it is") -> Any:
    """The file as a module of its own, with the change of an exercise."""
    old, new = EXERCISES[name]
    assert SOURCE.count(old) == 1 or not old, f"{name}: {old} occurs {SOURCE.count(old)} times"
    module = ModuleType("rlcsd_in_one_file")
    module.__file__ = str(HERE / "rlcsd_in_one_file.py")
    sys.modules[module.__name__] = module  # where dataclasses look for it
    exec(compile(SOURCE.replace(old, new) if old else SOURCE, module.__file__, "exec"), module.__dict__)
    return module


# ------------------------------------------------------------------ one set of responses


class Responses:
    """Groups that the tiny model writes on the first training puzzles, the same in each call; one at least is mixed."""

    def __init__(self, one: Any, first: int, count: int) -> None:
        transformers.logging.disable_progress_bar()
        self.model, self.tokenizer = one.load(one.MODEL)
        lines = Path(one.DATA).read_text(encoding="utf-8").splitlines()[one.HELD_OUT :]
        problems = [json.loads(line) for line in lines[first : first + count]]
        self.groups: list[list[Any]] = []
        seeds = itertools.count()
        while not any(0 < sum(r.correct for r in group) < len(group) for group in self.groups):
            torch.manual_seed(next(seeds))
            self.groups = one.sample(self.model, self.tokenizer, problems, one.GROUP)
        for group in self.groups:
            one.set_advantages(group)

    def scored(self, one: Any) -> Scored:
        """The responses that have hints, and the advantage and the contrast `[N]` of their tokens."""
        rng = random.Random(0)
        for rollout in (rollout for group in self.groups for rollout in group):
            rollout.hints = []
        for group in self.groups:
            one.draw_hints(group, rng)
        batch = [rollout for group in self.groups for rollout in group if rollout.hints]
        advantage = torch.cat([torch.full_like(r.old, r.advantage) for r in batch])
        return batch, advantage, one.score(self.model, self.tokenizer, batch)

    def kinds(self, batch: list[Any]) -> list[str]:
        """The kind of each token of the batch, as `rlcsd inspect` has it: conclusion, verdict, task, style or other."""
        return [kind for r in batch for kind in kinds_of(*token_offsets(self.tokenizer, r.response))]


def split(values: torch.Tensor, batch: list[Any]) -> tuple[torch.Tensor, ...]:
    return values.split([len(rollout.response) for rollout in batch])


def signal_figures(responses: Responses, one: Any, scored: Scored) -> dict[str, str]:
    """What the table of exercises says of one version of the file."""
    batch, advantage, e = scored
    credit, selected = one.assign_credit(advantage, e)
    weight = one.path_weights(selected)
    kinds = responses.kinds(batch)
    style, conclusion = (torch.tensor([kind == name for kind in kinds]) for name in ("style", "conclusion"))
    right = torch.cat([torch.full((len(r.response),), r.correct) for r in batch])
    errors = {}
    for correct in (True, False):
        parts = zip(batch, split(e, batch), split(conclusion, batch), strict=True)
        means = [values[where].mean() for r, values, where in parts if r.correct is correct and bool(where.any())]
        errors[correct] = sum((mean > 0) != correct for mean in means) / max(len(means), 1)
    ratio = weight[selected].mean() / weight[~selected].mean() if bool(selected.any()) else torch.tensor(torch.nan)
    return {
        "e, style": f"{e[style].mean():+.3f}",
        "e, conclusion of correct": f"{e[conclusion & right].mean():+.2f}",
        "of wrong": f"{e[conclusion & ~right].mean():+.2f}",
        "wrong sign, correct": f"{errors[True]:.0%}",
        "wrong": f"{errors[False]:.0%}",
        "selected": f"{selected.double().mean():.0%}",
        "A' against the verifier": f"{(credit * advantage < 0).double().mean():.1%}",
        "weight of a selected token": "–" if bool(ratio.isnan()) else f"{ratio:.2f}",
    }


def exercises(responses: Responses) -> None:
    """The figures of each version; one that changes what follows the scores only has the scores of the file itself."""
    usual, rows = responses.scored(changed()), {}
    for name in EXERCISES:
        one = changed(name)
        rows[name] = signal_figures(responses, one, responses.scored(one) if name in RESCORED else usual)
    table(rows, "change")


# ------------------------------------------------------------------ ten tokens


def tokens(responses: Responses) -> None:
    """The last ten tokens before the end of a wrong response, and the response."""
    one = changed()
    batch, advantage, e = responses.scored(one)
    credit, selected = one.assign_credit(advantage, e)
    residual = one.LAM * torch.tanh(e / one.TAU)
    whole = [
        number
        for number, r in enumerate(batch)
        if not r.correct and len(r.hints) == 1 + one.K and claims(r.answer) == claims(r.problem["answer"])
    ]
    number = min(whole or range(len(batch)), key=lambda number: len(batch[number].response))
    rollout = batch[number]
    print(f"{rollout.problem['question']}\n\n{rollout.text}\n\nThe answer is: {rollout.problem['answer']}\n")
    prompts = [one.chat(responses.tokenizer, one.teacher_message(rollout, hint)) for hint in rollout.hints]
    with torch.no_grad():
        under = torch.stack(one.log_probs(responses.model, prompts, [rollout.response] * len(prompts)))  # [1 + K, T]
    wrong = under[1:].exp().mean(0)
    text, spans = token_offsets(responses.tokenizer, rollout.response)
    own_e, own_r, chosen, own_credit = (split(values, batch)[number] for values in (e, residual, selected, credit))
    rows = {
        t: {
            "token": f"`{text[start:end]}`",
            "policy": f"{rollout.old[t].exp():.3f}",
            "correct hint": f"{under[0, t].exp():.3f}",
            "wrong hints": f"{wrong[t]:.3f}",
            "e": f"{own_e[t]:+.4f}",
            "r": f"{own_r[t]:+.3f}" if chosen[t] else "not selected",
            "A": f"{rollout.advantage:+.3f}",
            "A'": f"{own_credit[t]:+.3f}",
        }
        for t, (start, end) in list(enumerate(spans))[-11:-1]
    }
    table(rows, "t")


def claims(answer: str | None) -> int:
    return (answer or "").count(" is a ")


# ------------------------------------------------------------------ settings


def settings(responses: Responses) -> None:
    """Two tables: settings that act on scored tokens, and those that act before, on the choice of hints."""
    one = changed()
    _, advantage, e = responses.scored(one)
    rows = {"as it is": credit_figures(one, advantage, e)}
    tried = {
        "TAU": (0.002, 0.2, 2.0),
        "LAM": (0.1, 1.0, 2.0),
        "DELTA": (0.0, 0.1, 0.4),
        "BOUND": (0.25,),
        "ETA": (0.5, 2.0),
    }
    for name, value in [(name, value) for name, values in tried.items() for value in values]:
        usual = getattr(one, name)
        setattr(one, name, value)
        rows[f"{name} = {value}"] = credit_figures(one, advantage, e)
        setattr(one, name, usual)
    table(rows, "setting")
    print()
    whole, rows = responses.groups, {}
    for size in (2, 4, one.GROUP):
        responses.groups = [group[:size] for group in whole]
        rows[f"GROUP = {size}"] = hint_figures(one, responses)
    for one.K in (1, 2, 4):
        rows[f"K = {one.K}"] = hint_figures(one, responses)
    table(rows, "setting")


def credit_figures(one: Any, advantage: torch.Tensor, e: torch.Tensor) -> dict[str, str]:
    credit, selected = one.assign_credit(advantage, e)
    weight = one.path_weights(selected)
    both = bool(selected.any()) and not bool(selected.all())
    return {
        "selected": f"{selected.double().mean():.1%}",
        "mean change of A": f"{(credit - advantage).abs().mean():.3f}",
        "A' = 0 by the anchor": f"{((credit == 0) & (advantage != 0)).double().mean():.1%}",
        "weight of a selected token": f"{weight[selected].mean() / weight[~selected].mean():.2f}" if both else "–",
    }


def hint_figures(one: Any, responses: Responses) -> dict[str, str]:
    for rollout in (rollout for group in responses.groups for rollout in group):
        rollout.hints = []
    rng = random.Random(0)
    for group in responses.groups:
        one.draw_hints(group, rng)
    rollouts = [rollout for group in responses.groups for rollout in group]
    hinted = [rollout for rollout in rollouts if rollout.hints]
    wrong = sum(len(rollout.hints) - 1 for rollout in hinted) / max(len(hinted), 1)
    return {"responses with hints": f"{len(hinted) / len(rollouts):.0%}", "wrong hints of these": f"{wrong:.1f}"}


# ------------------------------------------------------------------ files


def puzzles() -> None:
    """128 held-out puzzles of the validation split, then 256 of the training split, as in task kk_tiny."""
    task = build_task(load(["task.train_per_size=256", "task.eval_per_size=128", "task.unseen_sizes=[]"]).task)
    rows = [
        {"question": question_text(problem.question), "answer": problem.answer}
        for problem in (*task.evaluations["seen_sizes"], *task.train)
    ]
    (HERE / "puzzles.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def notebook() -> None:
    import nbformat
    from nbclient import NotebookClient

    path = HERE / "learn.ipynb"
    book = nbformat.read(path, as_version=4)
    NotebookClient(
        book, timeout=1800, record_timing=False, coalesce_streams=True, resources={"metadata": {"path": str(HERE)}}
    ).execute()
    book.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(book, path)


def table(rows: dict[Any, dict[str, str]], first: str) -> None:
    """Print rows by name as a Markdown table."""
    columns = list(next(iter(rows.values())))
    print("| " + " | ".join([first, *columns]) + " |\n|" + "---|" * (1 + len(columns)))
    for name, row in rows.items():
        print("| " + " | ".join([str(name), *row.values()]) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["tokens", "settings", "exercises", "puzzles", "notebook"])
    parser.add_argument("--smoke", action="store_true", help="smallest sizes; the figures mean nothing")
    arguments = parser.parse_args()
    writers = {"puzzles": puzzles, "notebook": notebook}
    if arguments.what not in writers:
        table_of = {"tokens": tokens, "settings": settings, "exercises": exercises}[arguments.what]
        size = SMOKE if arguments.smoke else (0, SIZES[arguments.what])
        table_of(Responses(changed(), *size))
    elif not arguments.smoke:
        writers[arguments.what]()


if __name__ == "__main__":
    main()
