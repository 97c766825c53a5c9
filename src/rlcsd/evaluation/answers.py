"""Held-out accuracy: all evaluation sets of a task, answered and graded together or in batches that can be resumed.

Called by runs (`run.run`) and by `rlcsd eval`, which keeps the answers in an `EvaluationFolder`.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..config.load import from_yaml, to_yaml
from ..config.schema import Config, different_keys, is_free
from ..decoding import response_text
from ..engine.interface import Scorer
from ..errors import InputError
from ..prompts import student_prompt
from ..records import Problem, Sampling
from ..storage import check_new_folder, write_text
from ..tasks.task import Task
from ..validation import flat_config
from .summary import Answered, Summary, average, markdown_table, summarise


@dataclass(frozen=True)
class EvaluationSettings:
    """`samples` responses to each problem, `batch` problems at a time (None: all); each batch has a seed of its own."""

    samples: int
    sampling: Sampling
    seed: int = 0
    thinking: bool = True
    batch: int | None = None

    @staticmethod
    def of(config: Config) -> EvaluationSettings:
        e = config.evaluation
        return EvaluationSettings(e.samples, e.sampling.settings(), config.seed, config.model.thinking_eval, e.batch)


Keeper = Callable[[Sequence[Answered]], None]
Key = tuple[str, int]  # the name of an evaluation set, and the index of a problem in it


def check(tokenizer: Any, task: Task, settings: EvaluationSettings, room: int, context_length: int) -> None:
    """Raise InputError if the longest evaluation prompt and a response exceed `room` tokens.

    `room` and `context_length` are those of the engine; see `engine.interface.Scorer`.
    """
    problems = [problem for problems in task.evaluations.values() for problem in problems]
    prompts = (student_prompt(tokenizer, problem, task.instruction, settings.thinking) for problem in problems)
    longest = max(map(len, prompts), default=0)
    most = settings.sampling.max_tokens
    if longest and longest + most > room:
        what, more = "the model's context", ""
        if room < context_length:
            what, more = "a server's room", f", or a max_prompt_tokens larger by {longest + most - room}"
        raise InputError(
            f"evaluation.sampling.max_tokens={most}: with a prompt of {longest} tokens {what} of {room} is exceeded; "
            f"use at most {room - longest}{more}"
        )


def answer_problems(
    engine: Scorer, problems: Mapping[Key, Problem], task: Task, settings: EvaluationSettings, seed: int
) -> list[Answered]:
    """Sample and grade the responses to problems of any evaluation sets, in one call of the engine."""
    prompts = [student_prompt(engine.tokenizer, p, task.instruction, settings.thinking) for p in problems.values()]
    sampled = engine.sample(prompts, settings.samples, settings.sampling, seed)
    texts = [
        tuple(response_text(engine.tokenizer, sample.ids, prompt) for sample in samples)
        for prompt, samples in zip(prompts, sampled, strict=True)
    ]
    judged = task.judge(list(problems.values()), texts)
    return [
        Answered(
            dataset,
            index,
            problem.group or dataset,
            problem.text,
            problem.answer,
            written,
            tuple(verdict.reward for verdict in verdicts),
            tuple(len(sample.ids) for sample in samples),
            tuple(sample.finished for sample in samples),
            tuple(verdict.correct for verdict in verdicts),
        )
        for ((dataset, index), problem), samples, written, verdicts in zip(
            problems.items(), sampled, texts, judged, strict=True
        )
    ]


def _still_valid(item: Answered, problem: Problem, settings: EvaluationSettings) -> bool:
    """Whether an earlier answer is to this very problem and has all its samples; data may have changed since."""
    columns = (item.rewards, item.responses, item.lengths, item.finished, item.passed)
    same_problem = (item.question, item.answer) == (problem.text, problem.answer)
    return same_problem and all(len(column) == settings.samples for column in columns)


def answer_batches(
    engine: Scorer,
    problems: Mapping[Key, Problem],
    task: Task,
    settings: EvaluationSettings,
    done: Mapping[Key, Answered],
    keep: Keeper,
) -> list[Answered]:
    """All problems, `settings.batch` at a time; a whole batch in `done` is taken from there, others go to `keep`.

    A batch may hold problems of several sets: a server answers them side by side, and waits once for the longest.
    """
    order = sorted(problems, key=lambda key: len(problems[key].text))  # similar lengths together
    size = settings.batch or len(order)
    answered: list[Answered] = []
    for start in range(0, len(order), size):
        keys = order[start : start + size]
        batch = [done[key] for key in keys if key in done and _still_valid(done[key], problems[key], settings)]
        if len(batch) < len(keys):
            seed = random.Random(f"{settings.seed}/evaluation/{start}").getrandbits(62)
            batch = answer_problems(engine, {key: problems[key] for key in keys}, task, settings, seed)
            keep(batch)
        answered += batch
    return answered


def evaluate(
    engine: Scorer,
    task: Task,
    settings: EvaluationSettings,
    done: Sequence[Answered] = (),
    keep: Keeper = lambda batch: None,
) -> tuple[list[Summary], list[Answered]]:
    """Every evaluation set of the task: a summary per set, per kind where a set has several, and the average of sets.

    All sets are answered together. `done` are answers of an earlier, interrupted evaluation; `keep` is given each new
    batch of answers.
    """
    problems = {(name, n): problem for name, group in task.evaluations.items() for n, problem in enumerate(group)}
    earlier = {(item.dataset, item.index): item for item in done}
    by_key = {(one.dataset, one.index): one for one in answer_batches(engine, problems, task, settings, earlier, keep)}
    summaries, sets = [], []
    for name in task.evaluations:
        sets.append([by_key[name, index] for index in range(len(task.evaluations[name]))])
        kinds: dict[str, list[Answered]] = defaultdict(list)
        for item in sets[-1]:
            kinds[item.group].append(item)
        only = next(iter(kinds)) if len(kinds) == 1 else name
        summaries.append(replace(summarise(name, sets[-1]), kind="" if only == name else only))
        if len(kinds) > 1:
            summaries += [summarise(f"{name}: {kind}", items) for kind, items in sorted(kinds.items())]
    if len(sets) > 1:
        summaries.append(average(sets))
    return summaries, [item for answered in sets for item in answered]


# ------------------------------------------------------------------ the folder of `rlcsd eval --out`

_COLUMNS = ("responses", "rewards", "lengths", "finished", "passed")


def _line(item: Answered) -> str:
    return json.dumps(asdict(item), ensure_ascii=False) + "\n"


def _read(line: str) -> Answered | None:
    """An answer from its line; None for a line that was cut off in writing or holds anything else."""
    try:
        record: dict[str, Any] = json.loads(line)
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
        }
        if "place" in fields:  # the older name of `index`
            fields["index"] = fields.pop("place")
        item = Answered(**fields)
        return item if all(isinstance(getattr(item, name), tuple) for name in _COLUMNS) else None
    except (json.JSONDecodeError, TypeError, AttributeError):
        return None


def _holds(path: Path, config: Config) -> bool:
    """Whether a config file has these values, whatever version wrote it, but for those of the engine that change
    results by rounding alone."""
    try:
        ours, theirs = (flat_config(one.model_dump()) for one in (config, from_yaml(path)))
    except InputError:
        return False
    return all(key.startswith("engine.") and is_free(key) for key in different_keys(ours, theirs))


class EvaluationFolder:
    """`config.yaml` and `samples.jsonl` from the start, `eval.md` and `eval.json` at the end.

    Samples are written as they come, so that an interrupted evaluation can resume.

    Raises:
        InputError: the folder holds anything but an evaluation of this very config.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        self.folder, self.config = folder, to_yaml(config)
        self.samples = folder / "samples.jsonl"
        if not (folder / "config.yaml").is_file():
            check_new_folder(folder)
        elif not _holds(folder / "config.yaml", config):
            raise InputError(f"--out {folder}: it holds an evaluation with another config; choose another place")

    def open(self) -> list[Answered]:
        """Make the folder; returns the answers that are there already. Raises InputError if it cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "config.yaml").write_text(self.config, encoding="utf-8")
        except OSError as error:
            raise InputError(f"--out {self.folder}: cannot be written ({error.strerror})") from None
        if not self.samples.is_file():
            return []
        answers = [_read(line) for line in self.samples.read_text(encoding="utf-8", errors="replace").split("\n")]
        kept = [item for item in answers if item is not None]
        write_text(self.samples, "".join(map(_line, kept)))
        return kept

    def keep(self, batch: Sequence[Answered]) -> None:
        with self.samples.open("a", encoding="utf-8") as file:
            file.writelines(map(_line, batch))

    def finish(self, summaries: Sequence[Summary], answered: Sequence[Answered]) -> None:
        write_text(self.samples, "".join(map(_line, answered)))
        write_text(self.folder / "eval.md", markdown_table(summaries) + "\n")
        write_text(self.folder / "eval.json", json.dumps([summary.as_dict() for summary in summaries], indent=2))
