"""What the events of a run amount to: where it is, how long it will take, and a line for each event."""

from __future__ import annotations

import io
import os
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..evaluation.summary import Summary

PHASES = ("sample", "grade", "hint", "score", "update")
_RECENT = 10  # steps whose mean time tells the time that is left
_LONG = 15.0  # seconds after which a line says how far an evaluation is


class Progress:
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


# ------------------------------------------------------------------ view
# The live view of a run: a bar with the time left, the phases of a step, what is learnt, one response.

_BARS = "▁▂▃▄▅▆▇█"
_TREND = 24  # values of a trend
_PER_SECOND = 2.0


class LiveView:
    """Redrawn in place at the bottom of a terminal; what is printed meanwhile scrolls above it."""

    def __init__(self, console: Console, told: Progress) -> None:
        self.told, self.console = told, console
        self.live = Live(console=console, get_renderable=self._panel, refresh_per_second=_PER_SECOND, transient=True)

    def start(self) -> None:
        self.live.start()

    def stop(self) -> None:
        self.live.stop()

    def refresh(self) -> None:
        """Nothing to do: the view redraws itself, so that seconds go on within a phase."""

    def _panel(self) -> RenderableType:
        return panel(self.told, plain=self.console.options.ascii_only)


class NotebookView:
    """One output of a notebook's cell, redrawn at each event; needs nothing but IPython."""

    def __init__(self, told: Progress) -> None:
        self.told = told
        self.console = Console(file=sys.stdout, highlight=False, force_jupyter=False, force_terminal=False, width=120)
        self.handle: Any = None
        self._drawn = 0.0

    def start(self) -> None:
        from IPython.display import HTML, display

        self.handle = display(HTML(self._html()), display_id=True)

    def stop(self) -> None:
        self._draw()

    def refresh(self) -> None:
        if time.perf_counter() - self._drawn > 1 / _PER_SECOND:
            self._draw()

    def _draw(self) -> None:
        from IPython.display import HTML

        self._drawn = time.perf_counter()
        if self.handle is not None:
            self.handle.update(HTML(self._html()))

    def _html(self) -> str:
        paper = Console(file=io.StringIO(), record=True, width=100, force_jupyter=False, force_terminal=True)
        paper.print(panel(self.told))
        return paper.export_html(inline_styles=True, code_format="<pre style='line-height:1.2'>{code}</pre>")


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = sys.modules.get("IPython")
    instance = shell.get_ipython() if shell is not None else None
    return instance is not None and "IPKernelApp" in instance.config


def panel(told: Progress, plain: bool = False) -> RenderableType:
    """The view as it is now. `plain` leaves out characters beyond ASCII."""
    left = told.seconds_left()
    head = Table.grid(padding=(0, 1))
    head.add_row(
        Text(f"step {told.step}/{told.steps or '?'}"),
        ProgressBar(total=max(told.steps, 1), completed=told.step, width=40),
        Text(f"{clock(told.elapsed())} gone" + (f", {clock(left)} left" if left is not None else "")),
    )
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim")
    rows.add_column()
    rows.add_row("now", f"{told.phase} ({time.perf_counter() - told.phase_begun:.0f} s)")
    m = told.metrics
    if m:
        rows.add_row("step", f"{m['time/step']:.1f} s: {told.phases()}")
        rows.add_row("speed", f"{told.tokens_per_second():,.0f} tokens/s")
    names = (("reward", "rollout/reward", 3), ("entropy", "actor/entropy", 3), ("length", "rollout/length", 0))
    for label, name, digits in names:
        if told.history.get(name):
            values = told.history[name]
            rows.add_row(label, f"{values[-1]:.{digits}f}  {'' if plain else trend(values)}")
    if told.after:
        rows.add_row("held out", f"step {told.evaluated}: {told.rates()}")
    title = [Text(told.title, style="bold")] if told.title else []
    return Group(*title, head, rows)


def trend(values: Sequence[float]) -> str:
    """The last values as small bars between the lowest and the highest of them."""
    recent = [value for value in values[-_TREND:] if value == value]
    if len(recent) < 2:
        return ""
    low, high = min(recent), max(recent)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * scale)] for value in recent)


def accuracy_table(before: Sequence[Summary], after: Sequence[Summary]) -> Table:
    """Held-out accuracy before and after, one line per set and kind."""
    table = Table(title="held-out accuracy (95 % bootstrap interval)")
    for column in ("set", "problems", "before", "after"):
        table.add_column(column, justify="left" if column == "set" else "right")
    earlier = {summary.name: summary for summary in before}

    def cell(summary: Summary | None) -> str:
        return f"{summary.mean:.3f} [{summary.low:.3f}, {summary.high:.3f}]" if summary else ""

    for summary in after:
        table.add_row(summary.label, str(summary.problems), cell(earlier.get(summary.name)), cell(summary))
    return table


# ------------------------------------------------------------------ progress
# What a person sees of a run: a live view on a terminal or in a notebook, plain lines anywhere else.

Style = Literal["auto", "live", "lines", "off"]
_WIDTH = 120  # of a table in a file, which has no width of its own


class ProgressDisplay:
    """Watches a run (see `run.Watcher`) and shows it until the end of a `with` block.

    `auto` is the live view where there is a terminal or a notebook, and a line for each event where the output goes to
    a file, a pipe or a CI log. `prefix` begins each line.
    """

    def __init__(self, style: Style = "auto", file: TextIO | None = None, prefix: str = "") -> None:
        self.console = Console(file=file or sys.stdout, highlight=False, force_jupyter=False)
        if not self.console.is_terminal:
            self.console.width = _WIDTH
        self.told, self.prefix, self.silent = Progress(), prefix, style == "off"
        self.view: LiveView | NotebookView | None = None
        if style in ("auto", "live") and in_notebook():  # whose output says that it is a terminal
            self.view = NotebookView(self.told)
        elif style == "live" or (style == "auto" and not prefix and _is_terminal(self.console)):
            self.view = LiveView(self.console, self.told)

    def __enter__(self) -> Self:
        if self.view is not None:
            self.view.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.view is not None:
            self.view.stop()
        if error is None and self.told.after:
            if not self.prefix:  # lines of several runs are mixed
                self._print(accuracy_table(self.told.before, self.told.after))
            self._print(f"{self.prefix}{self.told.elapsed():.0f} s; report: {self.told.folder}/report.md")

    def watch(self, event: str, facts: Mapping[str, Any]) -> None:
        """Show one event."""
        lines = self.told.hear(event, facts)
        if self.silent:
            return
        if event == "warning" and self.view is None:
            with suppress(OSError):
                print(f"rlcsd: {self.prefix}{facts['message']}", file=sys.stderr, flush=True)
            return
        if self.view is not None:
            # The view itself shows phases and the first line of a step.
            lines = lines[1:] if event == "step" else lines if event != "phase" else []
            self.view.refresh()
        for line in lines:
            self._print(self.prefix + line)

    def _print(self, text: object) -> None:
        """Print, and go on training in silence if nobody can read it any more."""
        if self.silent:
            return
        try:
            if isinstance(self.view, NotebookView):
                self.view.console.print(text, soft_wrap=True, markup=False)
            else:
                self.console.print(text, soft_wrap=True, markup=False)
                self.console.file.flush()
        except (OSError, SystemExit) as error:  # rich ends the program at a closed pipe
            self.silent = True
            reason = error.strerror if isinstance(error, OSError) else "closed pipe"
            with suppress(OSError):
                print(
                    f"rlcsd: the output cannot be written ({reason}); the run goes on in silence",
                    file=sys.stderr,
                    flush=True,
                )
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.console.file.fileno())


def _is_terminal(console: Console) -> bool:
    """Whether a person looks at a terminal that can move its cursor; a CI log is none, whatever it says of itself."""
    return console.is_terminal and not console.is_dumb_terminal and not os.environ.get("CI")
