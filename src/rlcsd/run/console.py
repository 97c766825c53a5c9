"""Console output of a run: a live view on a terminal or in a notebook, one log line per event anywhere else.

`ProgressDisplay.watch` receives the events of a `Run`. `Progress` holds the state that they describe and words them as
log lines; `LiveView` and `NotebookView` draw that state.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Literal, Self, TextIO

import rich.progress
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..evaluation.summary import Summary

Style = Literal["auto", "live", "lines", "off"]
PHASES = ("sample", "grade", "hint", "score", "update")
_RECENT_STEPS = 10  # whose mean duration predicts the time left
_LINE_INTERVAL = 15.0  # seconds between two log lines about one evaluation
_TREND = ("rollout/reward", "actor/entropy", "rollout/length")
_BARS, _TREND_LENGTH = "▁▂▃▄▅▆▇█", 24
_REFRESH_RATE = 2.0  # of a view, per second
_FILE_WIDTH = 120  # columns of a table that is written to a file


# ------------------------------------------------------------------ state


class Progress:
    """Progress of a run: phase, time left, and one log line per event.

    `on_event` updates the state from an event of the run (see `run.Watcher`); the views read the attributes.
    """

    def __init__(self) -> None:
        self.folder, self.title = "", ""
        self.step, self.start, self.steps = 0, 0, 0
        self.begun = self.phase_begun = self._last_line = time.perf_counter()
        self.phase = "starting"
        self.metrics: Mapping[str, float] = {}
        self.history: dict[str, list[float]] = {}
        self.before: Sequence[Summary] = ()
        self.after: Sequence[Summary] = ()
        self.last_evaluation = -1  # its step
        self.completion: Mapping[str, Any] | None = None
        self._seconds: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._evaluation_seconds, self._evaluate_every = 0.0, 0

    def on_event(self, event: str, facts: Mapping[str, Any]) -> list[str]:
        """Update the state from one event; returns its log lines. Events of an unknown name have none."""
        handler = getattr(self, f"on_{event}", None)
        return handler(facts) if handler is not None else []

    def on_phase(self, facts: Mapping[str, Any]) -> list[str]:
        done, total = facts.get("done", 0), facts.get("total", 0)
        if facts["phase"] != self.phase:
            self.phase_begun = self._last_line = time.perf_counter()
        self.phase = facts["phase"] + (f" {done}/{total}" if total else "")
        if not self.folder:
            return [self.phase]  # before the run folder exists, phases are loading steps and each gets a line
        if total and time.perf_counter() - self._last_line > _LINE_INTERVAL:
            self._last_line = time.perf_counter()
            return [f"{self.phase} problems"]
        return []

    def on_start(self, facts: Mapping[str, Any]) -> list[str]:
        self.folder, self.steps, self.title = facts["folder"], facts["steps"], facts.get("title", "")
        self.step = self.start = facts["start"]
        self._evaluate_every, threads = facts.get("evaluate_every", 0), facts.get("threads", 0)
        lines = [f"run folder {self.folder}"]
        if threads:
            lines.append(f"{threads} CPU thread{'s' if threads > 1 else ''}")
        if facts["start"]:
            lines.append(f"resumed after step {facts['start']} of {self.steps}")
            if facts["start"] == self.steps:
                lines[-1] += f"; the run is finished (`rlcsd train --resume {self.folder} steps=N` goes further)"
        for step, summaries in facts["evaluations"]:
            self._set_accuracy(step, summaries)
        if facts["left_out"]:
            lines.append(f"{facts['left_out']} training problems are longer than max_prompt_tokens and left out")
        return [*lines, *(f"overlap: {overlap}" for overlap in facts["overlaps"])]

    def on_step(self, facts: Mapping[str, Any]) -> list[str]:
        self.step, self.metrics = facts["step"], facts["metrics"]
        self._seconds.append(self.metrics["time/step"])
        for name in _TREND:
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

    def on_evaluation(self, facts: Mapping[str, Any]) -> list[str]:
        self._set_accuracy(facts["step"], facts["summaries"])
        self._evaluation_seconds = facts.get("seconds", 0.0)
        return [f"held out at step {facts['step']}: {self.accuracy()}"]

    def on_warning(self, facts: Mapping[str, Any]) -> list[str]:
        return [f"warning: {facts['message']}"]

    def _set_accuracy(self, step: int, summaries: Sequence[Summary]) -> None:
        if step == 0:
            self.before = summaries
        self.after, self.last_evaluation = summaries, step

    def elapsed(self) -> float:
        return time.perf_counter() - self.begun

    def seconds_left(self) -> float | None:
        """Seconds to the end of the run, estimated from its last steps and its last evaluation; None before a step."""
        if not self._seconds or self.step >= self.steps:
            return None
        every = self._evaluate_every
        evaluations = 1 + ((self.steps - 1) // every - self.step // every if every else 0)
        steps = (self.steps - self.step) * sum(self._seconds) / len(self._seconds)
        return steps + evaluations * self._evaluation_seconds

    def tokens_per_second(self) -> float:
        """Sampled tokens of the last step over its whole duration."""
        m = self.metrics
        return m.get("rollout/tokens", 0.0) / m["time/step"] if m.get("time/step") else 0.0

    def peak_shares(self) -> str:
        """The share of the device's peak in each phase of the last step, where it is known."""
        shares = {phase: self.metrics.get(f"perf/mfu/{phase}") for phase in PHASES}
        known = ", ".join(f"{phase} {share:.0%}" for phase, share in shares.items() if share is not None)
        return f" (of the peak: {known})" if known else ""

    def accuracy(self) -> str:
        """The last held-out accuracy of each evaluation set, on one line."""
        return "  ".join(f"{s.name} {s.mean:.3f}" for s in self.after if ": " not in s.name)

    def phase_times(self) -> str:
        """Seconds of each phase of the last step, on one line."""
        m = self.metrics
        return " ".join(f"{phase} {m[f'time/{phase}']:.1f}" for phase in PHASES if m.get(f"time/{phase}", 0.0) >= 0.05)

    def step_line(self) -> str:
        """The log line of the last step."""
        m = self.metrics
        line = f"step {self.step:>4}/{self.steps}  reward {m['rollout/reward']:.3f}"
        line += f"  entropy {m.get('actor/entropy', float('nan')):.3f}  length {m['rollout/length']:.0f}"
        if "hints/usable_share" in m:
            line += f"  usable {m['hints/usable_share']:.2f}"
        left = self.seconds_left()
        line += f"  [{m['time/step']:.1f} s: {self.phase_times()}]  {self.tokens_per_second():,.0f} tokens/s"
        return line + (f"  {clock(left)} left" if left is not None else "")


def clock(seconds: float) -> str:
    """Seconds as 0:42, 12:03 or 3:07:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def completion_lines(completion: Mapping[str, Any], step: int, max_lines: int = 12) -> list[str]:
    """A sampled response with its question and reward, as log lines; at most `max_lines` of the response."""
    lines = completion["response"].strip().splitlines() or ["(nothing)"]
    if len(lines) > max_lines:
        lines = [*lines[: max_lines - 3], f"… {len(lines) - max_lines} more lines …", *lines[-3:]]
    head = f"a response of step {step}, reward {completion['reward']:g}, reference answer {completion['answer']}:"
    question = " ".join(completion["question"].split())
    if len(question) > 240:
        question = question[:240] + " …"
    return [head, f"  ? {question}", *(f"  | {line}" for line in lines)]


# ------------------------------------------------------------------ views


class LiveView:
    """Draws a `Progress` at the bottom of a terminal; lines printed meanwhile scroll above it."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self.progress, self.console = progress, console
        self.live = Live(console=console, get_renderable=self._panel, refresh_per_second=_REFRESH_RATE, transient=True)

    def start(self) -> None:
        self.live.start()

    def stop(self) -> None:
        self.live.stop()

    def refresh(self) -> None:
        """Does nothing: rich redraws the view by itself."""

    def _panel(self) -> RenderableType:
        return panel(self.progress, ascii_only=self.console.options.ascii_only)


class NotebookView:
    """Draws a `Progress` as one output of a notebook cell, redrawn at each event. Needs IPython."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.console = Console(file=sys.stdout, highlight=False, force_jupyter=False, force_terminal=False, width=120)
        self.handle: Any = None
        self._last_drawn = 0.0

    def start(self) -> None:
        from IPython.display import HTML, display

        self.handle = display(HTML(self._html()), display_id=True)

    def stop(self) -> None:
        self._draw()

    def refresh(self) -> None:
        if time.perf_counter() - self._last_drawn > 1 / _REFRESH_RATE:
            self._draw()

    def _draw(self) -> None:
        from IPython.display import HTML

        self._last_drawn = time.perf_counter()
        if self.handle is not None:
            self.handle.update(HTML(self._html()))

    def _html(self) -> str:
        recorder = Console(file=io.StringIO(), record=True, width=100, force_jupyter=False, force_terminal=True)
        recorder.print(panel(self.progress))
        return recorder.export_html(inline_styles=True, code_format="<pre style='line-height:1.2'>{code}</pre>")


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return shell is not None and "IPKernelApp" in shell.config


def panel(progress: Progress, ascii_only: bool = False) -> RenderableType:
    """The content of a view: progress bar, phase times, metrics and the last held-out accuracy."""
    left = progress.seconds_left()
    head = Table.grid(padding=(0, 1))
    head.add_row(
        Text(f"step {progress.step}/{progress.steps or '?'}"),
        ProgressBar(total=max(progress.steps, 1), completed=progress.step, width=40),
        Text(f"{clock(progress.elapsed())} gone" + (f", {clock(left)} left" if left is not None else "")),
    )
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim")
    rows.add_column()
    rows.add_row("now", f"{progress.phase} ({time.perf_counter() - progress.phase_begun:.0f} s)")
    if progress.metrics:
        rows.add_row("step", f"{progress.metrics['time/step']:.1f} s: {progress.phase_times()}")
        rows.add_row("speed", f"{progress.tokens_per_second():,.0f} tokens/s{progress.peak_shares()}")
    for label, name, digits in zip(("reward", "entropy", "length"), _TREND, (3, 3, 0), strict=True):
        if values := progress.history.get(name):
            rows.add_row(label, f"{values[-1]:.{digits}f}  {'' if ascii_only else sparkline(values)}")
    if progress.after:
        rows.add_row("held out", f"step {progress.last_evaluation}: {progress.accuracy()}")
    title = [Text(progress.title, style="bold")] if progress.title else []
    return Group(*title, head, rows)


def sparkline(values: Sequence[float]) -> str:
    """The last values as bars of block characters, scaled between their minimum and maximum; "" for fewer than two."""
    recent = [value for value in values[-_TREND_LENGTH:] if value == value]
    if len(recent) < 2:
        return ""
    low, high = min(recent), max(recent)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * scale)] for value in recent)


def accuracy_table(before: Sequence[Summary], after: Sequence[Summary]) -> Table:
    """Held-out accuracy before and after training, one row per evaluation set and kind of problem."""
    table = Table(title="held-out accuracy (95 % interval over problems)")
    for column in ("set", "problems", "before", "after"):
        table.add_column(column, justify="left" if column == "set" else "right")
    earlier = {summary.name: summary for summary in before}

    def cell(summary: Summary | None) -> str:
        return summary.rate if summary else ""

    for summary in after:
        table.add_row(summary.label, str(summary.problems), cell(earlier.get(summary.name)), cell(summary))
    return table


# ------------------------------------------------------------------ output


class ProgressDisplay:
    """Shows the events of a run for the length of a `with` block; pass its `watch` to the run.

    Args:
        style: "auto" is the live view on a terminal or in a notebook, and log lines where the output goes to a file, a
            pipe or a CI log; "live" and "lines" choose one of them, "off" shows nothing.
        file: where to write, by default stdout.
        prefix: begins each line. There is no live view with a prefix: lines of several runs are mixed then.
    """

    def __init__(self, style: Style = "auto", file: TextIO | None = None, prefix: str = "") -> None:
        self.console = Console(file=file or sys.stdout, highlight=False, force_jupyter=False)
        if not self.console.is_terminal:
            self.console.width = _FILE_WIDTH
        self.progress, self.prefix, self.silent = Progress(), prefix, style == "off"
        self.view: LiveView | NotebookView | None = None
        if style in ("auto", "live") and in_notebook():  # first: the output of a notebook claims to be a terminal
            self.view = NotebookView(self.progress)
        elif style == "live" or (style == "auto" and not prefix and _is_terminal(self.console)):
            self.view = LiveView(self.console, self.progress)

    def __enter__(self) -> Self:
        if self.view is not None:
            self.view.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.view is not None:
            self.view.stop()
        progress = self.progress
        if error is None and progress.folder:
            if progress.after and not self.prefix:
                self._print(accuracy_table(progress.before, progress.after))
            self._print(f"{self.prefix}{progress.elapsed():.0f} s; report: {progress.folder}/report.md")

    def watch(self, event: str, facts: Mapping[str, Any]) -> None:
        """Show one event."""
        lines = self.progress.on_event(event, facts)
        if self.silent:
            return
        if event == "warning" and self.view is None:
            _print_error(f"{self.prefix}{facts['message']}")
            return
        if self.view is not None:
            # The view shows phases and the figures of a step.
            lines = lines[1:] if event == "step" else lines if event != "phase" else []
            self.view.refresh()
        for line in lines:
            self._print(self.prefix + line)

    def _print(self, text: object) -> None:
        """Print; an output that cannot be written any more is given up, and the run continues."""
        if self.silent:
            return
        try:
            if isinstance(self.view, NotebookView):
                self.view.console.print(text, soft_wrap=True, markup=False)
            else:
                self.console.print(text, soft_wrap=True, markup=False)
                self.console.file.flush()
        except (OSError, SystemExit) as error:  # rich exits the program when a pipe is closed
            self.silent = True
            reason = error.strerror if isinstance(error, OSError) else "closed pipe"
            _print_error(f"the output cannot be written ({reason}); the run goes on in silence")
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.console.file.fileno())


def _print_error(message: str) -> None:
    with suppress(OSError):
        print(f"rlcsd: {message}", file=sys.stderr, flush=True)


def _is_terminal(console: Console) -> bool:
    """Whether the output is a terminal with cursor control that a person looks at. CI logs are none."""
    return console.is_terminal and not console.is_dumb_terminal and not os.environ.get("CI")


@contextmanager
def counter(label: str, total: int, console: Console | None = None) -> Iterator[Callable[[int], None]]:
    """Show how many of `total` items are done: a progress bar on a terminal, elsewhere a line every 15 seconds.

    Yields a function to call with the number of items that were just finished. `console` is stderr by default.
    """
    console = console or Console(stderr=True, highlight=False, force_jupyter=False)
    if console.is_terminal and not console.is_dumb_terminal:
        columns = (
            rich.progress.TextColumn(label), rich.progress.BarColumn(), rich.progress.MofNCompleteColumn(),
            rich.progress.TimeRemainingColumn(),
        )  # fmt: skip
        with rich.progress.Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(label, total=total)
            yield lambda count: bar.update(task, advance=count)
        return
    done, last_line = 0, time.perf_counter()

    def add(count: int) -> None:
        nonlocal done, last_line
        done += count
        if time.perf_counter() - last_line > _LINE_INTERVAL:
            last_line = time.perf_counter()
            console.print(f"{label} {done}/{total}", soft_wrap=True)

    yield add
