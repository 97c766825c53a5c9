"""What a person sees of a run: a live view on a terminal or in a notebook, plain lines anywhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Self, TextIO

from rich.console import Console

from .told import Told
from .view import LiveView, NotebookView, accuracy_table, in_notebook

Style = Literal["auto", "live", "lines", "off"]
_WIDTH = 120  # of a table in a file, which has no width of its own


class Progress:
    """Watches a run (see `run.Watcher`) and shows it until the end of a `with` block.

    `auto` is the live view where there is a terminal or a notebook, and a line for each event where the output goes to
    a file, a pipe or a CI log. `prefix` begins each line.
    """

    def __init__(self, style: Style = "auto", file: TextIO | None = None, prefix: str = "") -> None:
        self.console = Console(file=file or sys.stdout, highlight=False, force_jupyter=False)
        if not self.console.is_terminal:
            self.console.width = _WIDTH
        self.told, self.prefix, self.silent = Told(), prefix, style == "off"
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
