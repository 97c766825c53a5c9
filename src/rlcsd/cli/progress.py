"""Live progress on the terminal: a line a step with its phase times, and the table at the end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.table import Table

from ..evaluation.summary import Summary

_PHASES = ("sample", "hint", "score", "update")


class Progress:
    """Watches a run; see `run.Watcher`."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.folder, self.steps, self.begun, self.silent = "", 0, time.perf_counter(), False
        self.before: Sequence[Summary] = ()
        self.after: Sequence[Summary] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self.after:
            self._print(accuracy_table(self.before, self.after))
            self._print(f"{time.perf_counter() - self.begun:.0f} s; report: {self.folder}/report.md")

    def watch(self, event: str, facts: Mapping[str, Any]) -> None:
        match event:
            case "start":
                self.folder, self.steps = facts["folder"], facts["steps"]
                self._print(f"run folder {self.folder}")
                if facts["start"]:
                    finished = "; the run is finished" if facts["start"] == self.steps else ""
                    self._print(f"resumed after step {facts['start']} of {self.steps}{finished}")
                for step, summaries in facts["evaluations"]:
                    self._keep(step, summaries)
                if facts["left_out"]:
                    self._print(f"{facts['left_out']} training problems are longer than max_prompt_tokens and left out")
                for shared in facts["overlaps"]:
                    self._print(f"overlap: {shared}")
            case "step":
                self._print(self._line(facts["step"], facts["metrics"]))
            case "warning":
                with suppress(OSError):
                    print(f"rlcsd: {facts['message']}", file=sys.stderr, flush=True)
            case "evaluation":
                summaries = facts["summaries"]
                self._keep(facts["step"], summaries)
                rates = "  ".join(f"{s.name} {s.mean:.3f}" for s in summaries)
                self._print(f"held out at step {facts['step']}: {rates}")

    def _keep(self, step: int, summaries: Sequence[Summary]) -> None:
        if step == 0:
            self.before = summaries
        self.after = summaries

    def _print(self, text: object) -> None:
        """Print, and go on training in silence if nobody can read it any more."""
        if self.silent:
            return
        try:
            self.console.print(text, soft_wrap=True)
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

    def _line(self, step: int, m: Mapping[str, float]) -> str:
        phases = " ".join(f"{phase} {m[f'time/{phase}']:.1f}" for phase in _PHASES if f"time/{phase}" in m)
        shown = f"step {step:>4}/{self.steps}  reward {m['rollout/reward']:.3f}"
        shown += f"  entropy {m['actor/entropy']:.3f}  length {m['rollout/length']:.0f}"
        if "hints/usable_share" in m:
            shown += f"  usable {m['hints/usable_share']:.2f}"
        return f"{shown}  [{m['time/step']:.1f} s: {phases}]"


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
