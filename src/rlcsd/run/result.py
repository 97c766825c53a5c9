"""What `rlcsd.train` returns, and what can be asked of any run folder: accuracy, metrics, curves, pages, the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config.load import as_overrides
from ..evaluation import Summary
from ..report.page import Page
from ..report.run_report import Logs, draw_dynamics, html_summary, outcome
from ..tasks.task import Task
from .chat import Chat
from .checkpoint import checkpoint_of
from .evaluate import evaluate, task_overrides

_KEYS = ("folder", "before", "after")


Overrides = Sequence[str] | Mapping[str, Any]


class Result(Mapping[str, Any]):
    """A run, read from its folder whenever something is asked of it, so that it also serves while the run goes on.

    It is a mapping of `folder`, `before` and `after` as well. In a notebook it shows its outcome, its accuracies and
    its curves.

    >>> import rlcsd
    >>> result = rlcsd.Result("runs/mine")
    >>> result.folder.name, len(result.metrics)
    ('mine', 1)
    >>> len(result.generate(["Who is a knave?", "Who is a knight?"], ["evaluation.sampling.max_tokens=8"]))
    2

    Args:
        folder: the folder of a run, finished or not.
        task: the run's task, if it was given one from Python; `evaluate` needs it where the folder does not hold it.

    Raises:
        InputError: the folder holds no run.
    """

    def __init__(self, folder: str | Path, task: Task | None = None) -> None:
        self.folder = Path(folder)
        self._task = task
        self._chat: tuple[tuple[str, ...], Chat] | None = None
        self._logs()

    def _logs(self) -> Logs:
        return Logs.read(self.folder)

    # ------------------------------------------------------------------ numbers

    @property
    def before(self) -> list[Summary]:
        """Held-out accuracy before the first step, a summary for each set; empty if it was not measured."""
        return self._logs().before

    @property
    def after(self) -> list[Summary]:
        """The last held-out accuracy, a summary for each set; empty if there is none."""
        return self._logs().after

    @property
    def log(self) -> list[dict[str, Any]]:
        """The metrics of each step (`docs/metrics.md`), one mapping a step."""
        return [{"step": one["step"], **{k: v for k, v in one.items() if k != "step"}} for one in self._logs().steps]

    @property
    def metrics(self) -> Any:
        """`log` as a DataFrame of one row a step; where pandas is not installed, `log` itself."""
        return _frame(self.log)

    @property
    def evaluations(self) -> Any:
        """One row for each evaluation and set, as a DataFrame; where pandas is not installed, a list of mappings.

        `mean` is the accuracy, `low` and `high` its 95 % interval over problems; `pass@k` as far as there are samples.
        """
        rows = []
        for record in self._logs().evaluations:
            for one in record["sets"]:
                kept = {key: value for key, value in one.items() if key not in ("name", "pass_at", "kind")}
                passes = {f"pass@{k}": value for k, value in one["pass_at"].items()}
                rows.append({"step": record["step"], "set": one["name"], **kept, **passes})
        return _frame(rows)

    @property
    def outcome(self) -> str:
        """The first sentence of the run's report: its outcome, or why nothing was learned."""
        return outcome(self._logs())

    # ------------------------------------------------------------------ pictures

    def plot(self, path: str | Path | None = None) -> Any:
        """Reward, entropy, length and accuracy as a matplotlib figure, which a notebook shows.

        Args:
            path: also save it there, as a PNG with an SVG beside it.
        """
        return draw_dynamics(self._logs(), None if path is None else Path(path))

    def page(self, path: str | Path | None = None, steps: tuple[int, int] | None = None) -> Page:
        """The page of the recorded rollouts, token by token, as of `rlcsd show`; a notebook shows it inline.

        Args:
            path: the file that is written; by default `rollouts.html` in the run's folder.
            steps: the first and the last step shown.

        Raises:
            InputError: the run has recorded no rollouts (of these steps).
        """
        return Page(self.folder, self.folder / "rollouts.html" if path is None else Path(path), steps)

    # ------------------------------------------------------------------ the model

    def checkpoint(self, step: int | None = None) -> Path:
        """The checkpoint of `step`, by default the newest: a folder for `AutoModelForCausalLM.from_pretrained`.

        Raises:
            InputError: there is no such checkpoint.
        """
        return checkpoint_of(self.folder, step)

    def evaluate(
        self, overrides: Sequence[str] | Mapping[str, Any] = (), out: str | Path | None = None
    ) -> list[Summary]:
        """Held-out accuracy of the newest checkpoint on the run's task, or on another; see `rlcsd.evaluate`.

        Args:
            overrides: changes of the settings, such as `["evaluation.samples=8"]` or `["task=logic_kk"]`.
            out: folder for the answers.
        """
        overrides = as_overrides(overrides)
        task = None if task_overrides(overrides) else self._task
        return evaluate(self.folder, overrides, task, out, progress=False)

    def generate(self, question: Any, overrides: Overrides = (), step: int | None = None) -> Any:
        """The trained model's response to a question, or to each of several, with the task's instruction.

        Args:
            question: a text, which gives a text; or a list of texts and chats (`docs/tasks.md`), which are answered
                together and give a list of texts.
            overrides: changes of the settings, such as `["evaluation.sampling.temperature=0"]`.
            step: the step of the checkpoint; by default the newest.

        Raises:
            InputError: there is no such checkpoint, or a question leaves no room for a response.
        """
        overrides = as_overrides(overrides)
        key = (str(self.checkpoint(step)), *overrides)
        if self._chat is None or self._chat[0] != key:  # the model stays loaded for the next question
            self._chat = (key, Chat(self.folder, overrides, step))
        answers = self._chat[1].generate([question] if isinstance(question, str) else question)
        return answers[0] if isinstance(question, str) else answers

    # ------------------------------------------------------------------ as a mapping, and as text

    def __getitem__(self, key: str) -> Any:
        if key not in _KEYS:
            raise KeyError(key)
        return str(self.folder) if key == "folder" else getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return iter(_KEYS)

    def __len__(self) -> int:
        return len(_KEYS)

    def __repr__(self) -> str:
        return f"Result({str(self.folder)!r}): {self.outcome}"

    def _repr_html_(self) -> str:
        return html_summary(self._logs())


def _frame(rows: list[dict[str, Any]]) -> Any:
    try:
        import pandas
    except ImportError:
        return rows
    return pandas.DataFrame(rows)
