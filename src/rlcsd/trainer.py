"""One training step, and the loop around it.

    sample → grade → hint → score → credit → update

Data only flows down this street; no stage knows the command line, a tracker or the file system.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

from .config.schema import Config
from .engine.base import Engine
from .errors import InputError
from .evidence import Row, gather_evidence
from .groups import Group, Rollout, group_advantages
from .hints import Hint, HintCounts, Hints, draw_hints, solution_hint, teacher_context
from .methods.base import Evidence, HintedConfig, Method, Metrics
from .prompts import question_text, render
from .tasks.base import Problem, Task
from .verifiers import grade_groups, last_boxed


@dataclass
class StepResult:
    """What one step leaves behind: metrics, the groups, and the prepared evidence of each mini-batch."""

    step: int
    groups: list[Group]
    hints: list[list[Hints | None]]
    metrics: Metrics
    rows: list[list[Row]] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)


class Trainer:
    """Runs `method` on `task` with `engine`; `config` gives sizes, rates and seeds."""

    def __init__(self, config: Config, task: Task, method: Method, engine: Engine) -> None:
        self.config, self.task, self.method, self.engine = config, task, method, engine
        self.seconds: dict[str, float] = {}
        self.train = self._checked_problems()
        self.steps = config.steps or max(1, config.epochs * len(self.train) // config.prompts_per_step)

    def _checked_problems(self) -> list[Problem]:
        """The training problems whose prompt fits `max_prompt_tokens`.

        Raises:
            InputError: anything that can be wrong before sampling: no solutions to hint with, no problem that
                fits, a context too short for prompt and response.
        """
        if isinstance(self.method.config, HintedConfig) and self.method.config.hint_source == "gt_cot":
            for problem in self.task.train:
                solution_hint(problem)
        lengths = [len(self._prompt(problem)) for problem in self.task.train]
        fits = [p for p, length in zip(self.task.train, lengths, strict=True) if length <= self.config.max_prompt_tokens]
        if not fits:
            raise InputError(
                f"max_prompt_tokens={self.config.max_prompt_tokens}: every training prompt is longer; the shortest has {min(lengths)}"
            )
        longest = max(length for length in lengths if length <= self.config.max_prompt_tokens)
        if longest + self.config.sampling.max_tokens > self.engine.context_length:
            raise InputError(
                f"sampling.max_tokens={self.config.sampling.max_tokens}: with a prompt of {longest} tokens the model's context "
                f"of {self.engine.context_length} is exceeded; use at most {self.engine.context_length - longest}"
            )
        return fits

    # ------------------------------------------------------------------ the step

    def step(self, number: int) -> StepResult:
        """One training step: `prompts_per_step` groups, and an optimizer step for each mini-batch of them."""
        self.seconds = {}
        groups = self.sample_and_grade(self.problems(number), number)
        rows, hints, counts = self.hint(groups, number)
        result = StepResult(number, groups, hints, rollout_metrics(groups) | (counts.metrics() if self.method.hinted else {}))
        updates = []
        for batch in self.mini_batches(rows):
            with self.clock("score"):
                evidence = gather_evidence(self.engine, batch, self.method, self.correction_cap)
            evidence = self.method.prepare(evidence, number)
            with self.clock("update"):
                pairs = [row.pair for row in batch]
                updated = self.engine.update(pairs, evidence, self.method, self.learning_rate(number))
            updates.append({**self.method.metrics(evidence), **updated})
            result.rows.append(batch)
            result.evidence.append(evidence)
        result.metrics |= mean_of(updates)
        result.metrics |= {"update/count": float(len(updates))}
        result.metrics |= {f"time/{phase}": seconds for phase, seconds in self.seconds.items()}
        return result

    def sample_and_grade(self, problems: Sequence[Problem], number: int) -> list[Group]:
        """G rollouts per problem, judged; the group advantage from the rewards."""
        prompts = [self._prompt(problem) for problem in problems]
        with self.clock("sample"):
            seed = random.Random(f"{self.config.seed}/sample/{number}").getrandbits(62)
            drawn = self.engine.sample(prompts, self.config.group_size, self.config.sampling.settings(), seed)
        groups = []
        with self.clock("grade"):
            texts = [[self.engine.tokenizer.decode(s.ids, skip_special_tokens=True) for s in samples] for samples in drawn]
            judged = grade_groups(self.task.verifier, texts, [problem.answer for problem in problems])
            for problem, prompt, samples, written, rewards in zip(problems, prompts, drawn, texts, judged, strict=True):
                rollouts = tuple(
                    Rollout(sample, text, reward, last_boxed(text) or None)
                    for sample, text, reward in zip(samples, written, rewards, strict=True)
                )
                advantages = group_advantages(rewards, self.method.config.advantage_std)
                groups.append(Group(problem, tuple(prompt), rollouts, advantages))
        return groups

    def hint(self, groups: Sequence[Group], number: int) -> tuple[list[list[Row]], list[list[Hints | None]], HintCounts]:
        """Which sibling each rollout's teacher is shown; a rollout without a usable hint is left out or kept plain.

        Returns one list of rows per group, the hints drawn, and how the draws went.
        """
        counts = HintCounts()
        if not isinstance(self.method.config, HintedConfig):
            plain = [[Row(g.prompt, r, a) for r, a in zip(g.rollouts, g.advantages, strict=True)] for g in groups]
            return plain, [[None] * len(group.rollouts) for group in groups], counts
        rng = random.Random(f"{self.config.seed}/hint/{number}")
        all_rows, all_hints = [], []
        with self.clock("hint"):
            for group in groups:
                hints = draw_hints(group, self.method.config, self.method.contrast, rng, counts)
                graded = zip(group.rollouts, group.advantages, hints, strict=True)
                rows = [self._row(group, rollout, advantage, hint, counts) for rollout, advantage, hint in graded]
                all_rows.append([row for row in rows if row is not None])
                all_hints.append(hints)
        return all_rows, all_hints, counts

    def mini_batches(self, rows: Sequence[Sequence[Row]]) -> Iterator[list[Row]]:
        """The rows of `prompts_per_update` groups at a time; a mini-batch left empty is passed over."""
        size = self.config.prompts_per_update
        for start in range(0, len(rows), size):
            batch = [row for group in rows[start : start + size] for row in group]
            if batch:
                yield batch

    # ------------------------------------------------------------------ the loop

    def run(self, start: int = 0, after_step: Callable[[StepResult], None] | None = None) -> None:
        """Steps `start + 1` to `self.steps`; `after_step` is called with each result."""
        for number in range(start + 1, self.steps + 1):
            begun = perf_counter()
            result = self.step(number)
            result.metrics["time/step"] = perf_counter() - begun
            if after_step is not None:
                after_step(result)

    def problems(self, number: int) -> list[Problem]:
        """The problems of step `number`: passes over the shuffled training set, each pass in an order of its own."""
        size, total = self.config.prompts_per_step, len(self.train)
        places = [divmod(position, total) for position in range((number - 1) * size, number * size)]
        orders = {}
        for epoch in {epoch for epoch, _ in places}:
            orders[epoch] = random.Random(f"{self.config.seed}/order/{epoch}").sample(range(total), total)
        return [self.train[orders[epoch][place]] for epoch, place in places]

    def learning_rate(self, number: int) -> float:
        """Linear warm-up over `warmup_steps` training steps, then constant."""
        warmup = self.config.warmup_steps
        return self.config.learning_rate * min(1.0, number / warmup if warmup else 1.0)

    @property
    def correction_cap(self) -> float | None:
        return self.config.correction_cap if self.config.rollout_correction == "token" else None

    def _row(self, group: Group, rollout: Rollout, advantage: float, hint: Hints | None, counts: HintCounts) -> Row | None:
        """The rollout with the teacher's prompts for it; without them, or None, if it has no usable hint."""
        assert isinstance(self.method.config, HintedConfig)
        plain = Row(group.prompt, rollout, advantage)
        kept = plain if self.method.config.unusable == "plain" else None
        if hint is None:
            return kept
        if advantage == 0 and not self.method.scores_zero_advantage:
            return plain
        contexts = [self._context(group, rollout, each, counts) for each in (hint.correct, *hint.wrong)]
        if any(context is None for context in contexts):
            counts.no_room += 1
            return kept
        correct, *wrong = [context for context in contexts if context is not None]
        return Row(group.prompt, rollout, advantage, correct, tuple(wrong))

    def _prompt(self, problem: Problem) -> list[int]:
        text = question_text(problem.question, self.task.instruction)
        return render(self.engine.tokenizer, text, self.config.model.thinking_student)

    def _context(self, group: Group, rollout: Rollout, hint: Hint, counts: HintCounts) -> tuple[int, ...] | None:
        room = min(self.config.max_teacher_tokens or 1 << 30, self.engine.context_length) - len(rollout.sample.ids)
        ids, cut = teacher_context(
            self.engine.tokenizer,
            group.problem,
            hint,
            template=self.method.config.template,
            thinking=self.config.model.thinking_teacher,
            room=room,
            instruction=self.task.instruction,
        )
        counts.cut += cut
        return ids

    @contextmanager
    def clock(self, phase: str) -> Iterator[None]:
        begun = perf_counter()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + perf_counter() - begun


def rollout_metrics(groups: Sequence[Group]) -> Metrics:
    """Reward, length, entropy and how mixed the groups are."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    count = len(rollouts)
    tokens = sum(len(r.sample.ids) for r in rollouts)
    return {
        "rollout/reward": sum(r.reward for r in rollouts) / count,
        "rollout/accuracy": sum(r.correct for r in rollouts) / count,
        "rollout/length": tokens / count,
        "rollout/truncated": sum(not r.sample.finished for r in rollouts) / count,
        "rollout/boxed": sum(r.boxed is not None for r in rollouts) / count,
        "actor/entropy": sum(r.sample.entropy * len(r.sample.ids) for r in rollouts) / tokens,
        "groups/mixed": sum(0 < len(g.correct) < len(g.rollouts) for g in groups) / len(groups),
        "groups/lone_winner": sum(len(g.correct) == 1 for g in groups) / len(groups),
        "groups/lone_loser": sum(len(g.wrong) == 1 for g in groups) / len(groups),
    }


def mean_of(records: Sequence[Metrics]) -> Metrics:
    """Mean of each metric over the records that have it."""
    names = {name for record in records for name in record}
    found = {name: [record[name] for record in records if name in record] for name in sorted(names)}
    return {name: sum(values) / len(values) for name, values in found.items()}
