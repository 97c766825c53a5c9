"""One training step, and the loop around it.

    sample → grade → hint → score → credit → update

Each stage takes what the one before it made. No stage knows the command line, a tracker or the file system.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

from .engine.interface import Engine, keeps_sampling_mask
from .engine.throughput import PhaseMeter
from .health import Health
from .metrics import Metrics, Sum, combined
from .prepare import Prepared, training_prompt
from .records import Group, Problem, TokenBatch, TrainingExample
from .stages import step_rng
from .stages.correction import RolloutCorrection
from .stages.grade import Overlong, grade, rollout_metrics
from .stages.hint import HintedExamples, TeacherPrompts, hinted_examples, teacher_token_limit
from .stages.normalisation import prepare_columns
from .stages.refill import Refilled, refilled
from .stages.score import build_token_batch, with_old_log_probs
from .tasks.task import Task


@dataclass(frozen=True)
class StepResult:
    """What one step produces: its metrics and groups, and the examples and prepared columns of each mini-batch.

    `warnings` are findings of the guards; `no_update` says why no weight was changed, if none was.
    """

    step: int
    groups: list[Group]
    metrics: dict[str, float]
    examples: list[list[TrainingExample]]
    token_batches: list[TokenBatch]
    warnings: tuple[str, ...] = ()
    no_update: str | None = None


class Clock:
    """Measures the seconds of each phase of a step, and with `meter` what the device does in it.

    `on_phase` is called with a phase's name as it begins.
    """

    def __init__(self, on_phase: Callable[[str], None] = lambda phase: None, meter: PhaseMeter | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self.on_phase, self.meter = on_phase, meter

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        self.on_phase(phase)
        if self.meter is not None:
            self.meter.begin()
        start = perf_counter()
        yield
        if self.meter is not None:
            self.meter.end(phase)
        self.seconds[phase] = self.seconds.get(phase, 0.0) + perf_counter() - start

    def metrics(self) -> dict[str, float]:
        times = {f"time/{phase}": seconds for phase, seconds in self.seconds.items()}
        return times | (self.meter.metrics(self.seconds) if self.meter is not None else {})


class Trainer:
    """Trains the policy of an engine: `Trainer(prepare(config), engine)`; see `prepare.prepare`.

    `on_phase` is called with the name of each phase of a step as it begins.
    """

    def __init__(
        self, prepared: Prepared, engine: Engine, on_phase: Callable[[str], None] = lambda phase: None
    ) -> None:
        self.config, self.task, self.method = prepared.config, prepared.task, prepared.method
        self.train, self.steps, self.schedule = prepared.problems, prepared.steps, prepared.schedule
        self.engine, self.on_phase = engine, on_phase
        self.sampling = self.config.sampling.settings(keeps_sampling_mask(self.config))
        self.health = Health(self.config.guard)
        self.extra_problems = 0  # drawn by refills in all steps so far; saved with a checkpoint
        self.updates_done = 0  # of the step that is being made

    # ------------------------------------------------------------------ the step

    def step(self, number: int) -> StepResult:
        """One training step: `prompts_per_step` groups, and an optimizer step for each mini-batch of them."""
        clock = Clock(self.on_phase, PhaseMeter(self.engine, self.config))
        self.updates_done = 0
        refill = self.sampled_groups(number, clock)
        groups, sampled = refill.groups, refill.sampled
        with clock("hint"):
            hinted = self.hint(groups, number)
        with clock("score"):
            scored = with_old_log_probs(self.engine, hinted.examples)
            examples = self.correction.kept(scored)
        metrics: list[Metrics] = [rollout_metrics(sampled), *task_metrics(self.task, sampled)]
        metrics.append(refill.metrics() if self.config.refill_batches else {})
        metrics.append(hinted.counts.metrics() if self.method.hinted else {})
        metrics.append(self.correction.metrics(scored))
        entropy = entropy_metric(examples, sampled)
        findings = self.health.guards.before_update(combined(metrics) | entropy)
        if findings:
            self.health.guards.decide(findings)  # raises, or the step's update is left out
        batches: list[list[TrainingExample]] = list(self.mini_batches([] if findings else examples))
        prepared = []
        for batch in batches:
            columns, updated = self._update(batch, number, clock)
            self.updates_done += 1
            metrics += [self.method.metrics(columns), updated]
            prepared.append(columns)
        counts: Metrics = {"update/count": Sum(len(batches)), "guard/skipped": Sum(bool(findings))}
        logged = combined([*metrics, counts]) | entropy | clock.metrics()
        if not findings:
            findings = self.health.guards.after_update(logged)
            self.health.guards.decide(findings)
        cut = self.health.truncation(logged, self.config.sampling.max_tokens, self.engine.tokenizer)
        by_text = self.task.hints_by_text
        failed = self.health.verifier(sampled)
        hintless = self.health.hints(groups, logged, self.method, by_text)
        alike = self.health.advantages(groups, logged, self.method, by_text)
        no_update = self.health.stall.after_step(groups, logged, self.method, by_text)
        self.extra_problems += refill.extra_problems
        return StepResult(
            number, groups, logged, batches, prepared, (*findings, *failed, *cut, *hintless, *alike), no_update
        )

    def sampled_groups(self, number: int, clock: Clock) -> Refilled:
        """Sampled and graded groups of step `number`, refilled as the config says."""
        first = self._groups(self.problems(number), number, "sample", clock)
        drawn = 0

        def more(batch: int, count: int) -> list[Group]:
            nonlocal drawn
            problems = self.problems(number, drawn + self.config.prompts_per_step, count)
            drawn += count
            return self._groups(problems, number, f"refill/{batch}", clock)

        return refilled(first, more, self.config.refill_batches)

    def _groups(self, problems: Sequence[Problem], number: int, stage: str, clock: Clock) -> list[Group]:
        """A graded group for each problem; `stage` has a seed of its own in each step."""
        with clock("sample"):
            prompts = [self._prompt(problem) for problem in problems]
            seed = step_rng(self.config.seed, stage, number).getrandbits(62)
            samples = self.engine.sample(prompts, self.config.group_size, self.sampling, seed)
        with clock("grade"):
            return grade(
                self.engine.tokenizer,
                self.task,
                problems,
                prompts,
                samples,
                estimator=self.method.config.estimator,
                overlong=self.overlong,
            )

    def _update(self, batch: Sequence[TrainingExample], number: int, clock: Clock) -> tuple[TokenBatch, Metrics]:
        """Score, credit and update of one mini-batch: its prepared columns and the update's metrics."""
        with clock("score"):
            columns = self.token_batch(batch)
        columns, figures = prepare_columns(self.method, columns, batch, number, self.config)
        with clock("update"):
            pairs = [example.pair for example in batch]
            updated = self.engine.update(pairs, columns, self.method, self.learning_rate(number))
        if columns.topk_handle is not None:
            self.engine.release(columns.topk_handle)
        return columns, {**updated, **figures}

    def hint(self, groups: Sequence[Group], number: int) -> HintedExamples:
        """The hint stage with this run's seed; see `stages.hint.hinted_examples`."""
        c = self.config
        limit = teacher_token_limit(c.max_teacher_tokens, self.engine.context_length)
        prompts = TeacherPrompts(
            self.engine.tokenizer, limit, c.model.thinking_teacher, self.task.instruction, self.task.hints_by_text
        )
        return hinted_examples(groups, self.method, prompts, step_rng(c.seed, "hint", number), number)

    def token_batch(self, batch: Sequence[TrainingExample]) -> TokenBatch:
        """The columns of one mini-batch; see `stages.score.build_token_batch`."""
        return build_token_batch(self.engine, batch, self.method, self.correction)

    def mini_batches(self, examples: Sequence[Sequence[TrainingExample]]) -> Iterator[list[TrainingExample]]:
        """The examples of `prompts_per_update` groups at a time; empty mini-batches are left out."""
        size = self.config.prompts_per_update
        for start in range(0, len(examples), size):
            batch = [example for group in examples[start : start + size] for example in group]
            if batch:
                yield batch

    # ------------------------------------------------------------------ the loop

    def run(self, start: int = 0, after_step: Callable[[StepResult], None] | None = None) -> None:
        """Steps `start + 1` to `self.steps`; `after_step` is called with each result."""
        for number in range(start + 1, self.steps + 1):
            result = self.timed_step(number)
            if after_step is not None:
                after_step(result)

    def timed_step(self, number: int) -> StepResult:
        """One step, with its duration in seconds as `time/step`."""
        start = perf_counter()
        result = self.step(number)
        result.metrics["time/step"] = perf_counter() - start
        return result

    def problems(self, number: int, after: int = 0, count: int | None = None) -> list[Problem]:
        """The problems of step `number`: passes over the training set, each shuffled anew unless `shuffle` is false.

        With `count`, as many that come `after` positions later: those that a refill draws. The next step goes on behind
        them, for which `extra_problems` counts them.
        """
        size, total = self.config.prompts_per_step, len(self.train)
        start = (number - 1) * size + self.extra_problems + after
        positions = [divmod(position, total) for position in range(start, start + (count or size))]
        orders: dict[int, Sequence[int]] = {}
        for epoch in {epoch for epoch, _ in positions}:
            order = random.Random(f"{self.config.seed}/order/{epoch}")
            orders[epoch] = order.sample(range(total), total) if self.config.shuffle else range(total)
        return [self.train[orders[epoch][index]] for epoch, index in positions]

    def learning_rate(self, number: int) -> float:
        """That of training step `number`: linear warm-up over `warmup_steps`, then `lr_scheduler_type`."""
        return self.config.learning_rate * self.schedule(number)

    @property
    def correction(self) -> RolloutCorrection:
        c = self.config
        return RolloutCorrection(
            c.rollout_correction, c.importance_weight_cap, c.importance_weight_floor, c.rollout_rejection
        )

    @property
    def overlong(self) -> Overlong | None:
        """The length penalty of the config, None without one."""
        limit, overlong = self.config.sampling.max_tokens, self.config.overlong
        buffer = overlong.buffer_tokens(limit)
        return Overlong(limit, buffer, overlong.penalty) if buffer else None

    def _prompt(self, problem: Problem) -> list[int]:
        return training_prompt(self.engine.tokenizer, self.task, self.config, problem)


# ------------------------------------------------------------------ metrics


def task_metrics(task: Task, groups: Sequence[Group]) -> list[Metrics]:
    """Task-specific metrics of each response, if the task has any."""
    if task.figures is None:
        return []
    return [task.figures(group.problem, rollout.text) for group in groups for rollout in group.rollouts]


def entropy_metric(examples: Sequence[Sequence[TrainingExample]], groups: Sequence[Group]) -> dict[str, float]:
    """Mean entropy of the policy over the tokens of all rollouts, in nats.

    If the sampler computes no entropies, over the tokens of the rollouts that were scored for the update.
    """
    sampled = [rollout.sample for group in groups for rollout in group.rollouts]
    scored = [example.rollout.sample for group in examples for example in group]
    known = sampled if all(sample.entropy is not None for sample in sampled) else scored
    tokens = sum(len(sample) for sample in known)
    return {"actor/entropy": sum((s.entropy or 0.0) * len(s) for s in known) / tokens} if tokens else {}
