"""What the events of a run amount to: where it is, how long it will take, and a line for each event."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from ..evaluation.summary import Summary

PHASES = ("sample", "grade", "hint", "score", "update")
_RECENT = 10  # steps whose mean time tells the time that is left
_LONG = 15.0  # seconds after which a line says how far an evaluation is


class Told:
    """The state of a run as its events tell it, and those events in words."""

    def __init__(self) -> None:
        self.folder, self.title = "", ""
        self.step, self.start, self.steps = 0, 0, 0
        self.begun = self.phase_begun = self._last_line = time.perf_counter()
        self.phase = "starting"
        self.metrics: Mapping[str, float] = {}
        self.history: dict[str, list[float]] = {}
        self.before: Sequence[Summary] = ()
        self.after: Sequence[Summary] = ()
        self.evaluated = -1  # the step of the last evaluation
        self.completion: Mapping[str, Any] | None = None
        self._seconds: deque[float] = deque(maxlen=_RECENT)
        self._evaluation_seconds, self._every = 0.0, 0

    # ------------------------------------------------------------------ hearing

    def hear(self, event: str, facts: Mapping[str, Any]) -> list[str]:
        """Take in one event; returns the lines that tell it in a log."""
        heard = getattr(self, f"_hear_{event}", None)
        return heard(facts) if heard is not None else []

    def _hear_phase(self, facts: Mapping[str, Any]) -> list[str]:
        done, total = facts.get("done", 0), facts.get("total", 0)
        if facts["phase"] != self.phase:
            self.phase_begun = self._last_line = time.perf_counter()
        self.phase = facts["phase"] + (f" {done}/{total}" if total else "")
        if not self.folder:
            return [self.phase]  # at start-up each phase is news
        if total and time.perf_counter() - self._last_line > _LONG:
            self._last_line = time.perf_counter()
            return [f"{self.phase} problems"]
        return []

    def _hear_start(self, facts: Mapping[str, Any]) -> list[str]:
        self.folder, self.steps, self.title = facts["folder"], facts["steps"], facts.get("title", "")
        self.step = self.start = facts["start"]
        self._every, threads = facts.get("evaluate_every", 0), facts.get("threads", 0)
        lines = [f"run folder {self.folder}"]
        if threads:
            lines.append(f"{threads} CPU thread{'s' if threads > 1 else ''}")
        if facts["start"]:
            lines.append(f"resumed after step {facts['start']} of {self.steps}")
            if facts["start"] == self.steps:
                lines[-1] += f"; the run is finished (`rlcsd train --resume {self.folder} steps=N` goes further)"
        for step, summaries in facts["evaluations"]:
            self._keep(step, summaries)
        if facts["left_out"]:
            lines.append(f"{facts['left_out']} training problems are longer than max_prompt_tokens and left out")
        return [*lines, *(f"overlap: {shared}" for shared in facts["overlaps"])]

    def _hear_step(self, facts: Mapping[str, Any]) -> list[str]:
        self.step, self.metrics = facts["step"], facts["metrics"]
        self._seconds.append(self.metrics["time/step"])
        for name in ("rollout/reward", "actor/entropy", "rollout/length"):
            if name in self.metrics:
                self.history.setdefault(name, []).append(self.metrics[name])
        self.phase, self.phase_begun = "between steps", time.perf_counter()
        lines = [self.step_line()]
        if facts.get("no_update"):
            lines.append(f"No update in this step: {facts['no_update']}")
        if facts.get("completion"):
            self.completion = facts["completion"]
            lines += completion_lines(facts["completion"], self.step)
        return lines

    def _hear_evaluation(self, facts: Mapping[str, Any]) -> list[str]:
        self._keep(facts["step"], facts["summaries"])
        self._evaluation_seconds = facts.get("seconds", 0.0)
        return [f"held out at step {facts['step']}: {self.rates()}"]

    def _hear_warning(self, facts: Mapping[str, Any]) -> list[str]:
        return [f"warning: {facts['message']}"]

    def _keep(self, step: int, summaries: Sequence[Summary]) -> None:
        if step == 0:
            self.before = summaries
        self.after, self.evaluated = summaries, step

    # ------------------------------------------------------------------ telling

    def elapsed(self) -> float:
        return time.perf_counter() - self.begun

    def seconds_left(self) -> float | None:
        """Until the end of the run, by its last steps and its last evaluation; None before the first step."""
        if not self._seconds or self.step >= self.steps:
            return None
        left = self.steps - self.step
        evaluations = 1 + ((self.steps - 1) // self._every - self.step // self._every if self._every else 0)
        return left * sum(self._seconds) / len(self._seconds) + evaluations * self._evaluation_seconds

    def tokens_per_second(self) -> float:
        """Sampled tokens over the seconds of the whole step."""
        m = self.metrics
        return m.get("rollout/tokens", 0.0) / m["time/step"] if m.get("time/step") else 0.0

    def rates(self) -> str:
        """The last held-out accuracy of each set."""
        return "  ".join(f"{s.name} {s.mean:.3f}" for s in self.after if ": " not in s.name)

    def phases(self) -> str:
        m = self.metrics
        return " ".join(f"{phase} {m[f'time/{phase}']:.1f}" for phase in PHASES if m.get(f"time/{phase}", 0.0) >= 0.05)

    def step_line(self) -> str:
        """One line for a log."""
        m = self.metrics
        shown = f"step {self.step:>4}/{self.steps}  reward {m['rollout/reward']:.3f}"
        shown += f"  entropy {m.get('actor/entropy', float('nan')):.3f}  length {m['rollout/length']:.0f}"
        if "hints/usable_share" in m:
            shown += f"  usable {m['hints/usable_share']:.2f}"
        left = self.seconds_left()
        shown += f"  [{m['time/step']:.1f} s: {self.phases()}]  {self.tokens_per_second():,.0f} tokens/s"
        return shown + (f"  {clock(left)} left" if left is not None else "")


def clock(seconds: float) -> str:
    """Seconds as 0:42, 12:03 or 3:07:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def completion_lines(completion: Mapping[str, Any], step: int, most: int = 12) -> list[str]:
    """One sampled response with its question and reward, at most `most` lines of the response."""
    written = completion["response"].strip().splitlines() or ["(nothing)"]
    cut = [f"… {len(written) - most} more lines …"] if len(written) > most else []
    shown = [*written[: most - 3], *cut, *written[-3:]] if cut else written
    head = f"a response of step {step}, reward {completion['reward']:g}, reference answer {completion['answer']}:"
    question = " ".join(completion["question"].split())
    asked = question if len(question) <= 240 else question[:240] + " …"
    return [head, f"  ? {asked}", *(f"  | {line}" for line in shown)]
