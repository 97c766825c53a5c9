"""The report of one run: `report.md`, which begins with the outcome, and `report.png` with its training curves."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation import Summary, interval_over_problems, markdown_table, reported, summaries_of
from ..storage import read_jsonl, write_text
from .figures import BEFORE, CURVES, Series, bars, colours, drawing, smoothed
from .run_results import curve, label_of_method, read_config, updates_by_step

Records = Sequence[Mapping[str, Any]]  # of metrics.jsonl, evaluations.jsonl or events.jsonl
_MAX_WARNINGS = 10  # that are listed
_MAX_CHARACTERS = 1500  # of a question or response that is shown


@dataclass(frozen=True)
class Logs:
    """What the logs of a run hold. `steps` are the records of training steps alone, one a step."""

    folder: Path
    config: Mapping[str, Any]
    metrics: Records
    evaluations: Records
    events: Records

    @staticmethod
    def read(folder: Path) -> Logs:
        """Raises InputError if the folder holds no run, or a log is damaged."""
        names = ("metrics.jsonl", "evaluations.jsonl", "events.jsonl")
        return Logs(folder, read_config(folder), *(read_jsonl(folder / name) for name in names))

    @property
    def steps(self) -> Records:
        return [record for record in self.metrics if "rollout/reward" in record]

    @property
    def before(self) -> list[Summary]:
        """Of the evaluation before the first step; empty if there is none."""
        first = self.evaluations[0] if self.evaluations else {"step": None}
        return summaries_of(first) if first["step"] == 0 else []

    @property
    def after(self) -> list[Summary]:
        """Of the last evaluation, be it that before the first step; empty if there is none."""
        return summaries_of(self.evaluations[-1]) if self.evaluations else []

    @property
    def trained(self) -> bool:
        """Whether there is an evaluation after a step."""
        return bool(self.evaluations) and self.evaluations[-1]["step"] > 0

    def of(self, event: str) -> Records:
        return [record for record in self.events if record["event"] == event]


def write_report(folder: Path, figures: bool = True) -> Path:
    """Write `report.md`, and with `figures` also `report.png`, from the logs in a run folder; returns the former.

    Raises:
        InputError: the folder holds no run, or a log is damaged.
    """
    logs = Logs.read(folder)
    c = logs.config
    lines = [f"# {label_of_method(c)} on {c['task'].get('name')} (seed {c['seed']})", "", f"**{outcome(logs)}**", ""]
    lines += [*findings(logs), ""]
    if logs.after:
        before = logs.before if logs.trained else []
        lines += ["## Held-out accuracy", "", "Intervals: 95 %, over problems.", ""]
        lines += [markdown_table(logs.after, before), ""]
    lines += [*_sample(logs), *_phase_table(logs.steps)]
    if figures and logs.metrics:
        draw_dynamics(logs, folder / "report.png")
        lines += ["![training dynamics](report.png)", ""]
    path = folder / "report.md"
    write_text(path, "\n".join([*lines, *_repetition(logs)]) + "\n")
    return path


def html_summary(logs: Logs) -> str:
    """The outcome, the accuracies and the curves of a run as HTML, for a notebook."""
    rows = []
    for summary in logs.after:
        old = next((one.rate for one in logs.before if one.name == summary.name and logs.trained), "")
        cells = (summary.label, str(summary.problems), old, summary.rate)
        rows.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    head = "".join(
        f"<th>{name}</th>" for name in ("set", "problems", "before", "after" if logs.trained else "accuracy")
    )
    table = f"<table><tr>{head}</tr>{''.join(rows)}</table>" if rows else ""
    image = ""
    if logs.metrics:
        png = base64.b64encode(draw_dynamics(logs)._repr_png_()).decode()
        image = f'<img alt="training dynamics" src="data:image/png;base64,{png}">'
    return f"<p><b>{html.escape(outcome(logs))}</b></p>{table}{image}<p>{html.escape(str(logs.folder))}</p>"


# ------------------------------------------------------------------ in words


def outcome(logs: Logs) -> str:
    """One sentence: what was trained, for how long, and its accuracy before and after, or why nothing was learned."""
    what = f"{label_of_method(logs.config)} on {logs.config['task'].get('name')}"
    model, steps = f"`{logs.config['model']['path']}`", logs.steps
    if not steps:
        return f"Nothing was learned: {what} ended before the first training step of {model} was done."
    planned = logs.config.get("steps")
    count = f"{len(steps)} of {planned} steps" if planned and planned > len(steps) else _plural(len(steps), "step")
    spent = f"{count} ({_duration(logs)}) of {what}"
    updates = updates_by_step(steps)
    if updates and not sum(updates.values()):
        reasons = logs.of("no_update")
        why = f", because {_reason(reasons[-1])}" if reasons else ""
        return f"Nothing was learned: {spent} changed no weight of {model}{why}."
    return f"After {spent}, {_accuracy(logs, model)}."


def _accuracy(logs: Logs, model: str) -> str:
    if not logs.trained:
        why = "its task has no evaluation sets" if not logs.evaluations else "there is no evaluation after training"
        return f"the accuracy of {model} is not known: {why}"
    after = reported(logs.after)
    place = f"held-out accuracy of {model} ({after.label if after.name != 'average' else 'average of the sets'})"
    if not logs.before:
        return f"{place} is {after.rate}; it was not measured before"
    old, paired = reported(logs.before), paired_gain(logs)
    change = f"from {old.rate} to {after.rate}"
    if paired is None:
        return f"{place} went {change}"
    gain, low, high, problems = paired
    verb = "rose" if low > 0 else "fell" if high < 0 else "went"
    verdict = "" if verb != "went" else ", which is no difference that these problems can show"
    return (
        f"{place} {verb} {change}, by {gain:+.3f} on the same {problems} problems (95 %: {low:+.3f} to {high:+.3f})"
        f"{verdict}"
    )


def paired_gain(logs: Logs) -> tuple[float, float, float, int] | None:
    """The change of the reported average, its 95 % interval over the problems of both evaluations, and their number.

    None if the evaluations do not have the same problems, or too few.
    """
    first, last = logs.evaluations[0].get("outcomes", {}), logs.evaluations[-1].get("outcomes", {})
    by_set: dict[str, list[float]] = {}
    if first.keys() != last.keys() or any(first[name].keys() != last[name].keys() for name in first):
        return None
    for name, shares in last.items():
        gains = [share - first[name][problem] for problem, share in shares.items()]
        by_set.setdefault(name.partition(": ")[0], []).extend(gains)
    interval = interval_over_problems(*by_set.values(), lowest=-1.0) if by_set else None
    if interval is None:
        return None
    mean = float(np.mean([np.mean(gains) for gains in by_set.values()]))
    return mean, *interval, sum(map(len, by_set.values()))


def findings(logs: Logs) -> list[str]:
    """A list of what a reader has to know beside the accuracy: updates, usable share, overlap, warnings."""
    c, steps = logs.config, logs.steps
    lines = [
        f"* Settings: model `{c['model']['path']}`, learning rate {c['learning_rate']:g}, G = {c['group_size']}, "
        f"reference KL {c['kl_coefficient']:g}, seed {c['seed']}.",
        *_given_task(c["task"]),
    ]
    if updates := updates_by_step(steps):
        changing = sum(count > 0 for count in updates.values())
        made = _plural(sum(updates.values()), "optimizer step")
        lines.append(f"* Updates: {made}, in {changing} of {_plural(len(updates), 'step')}.")
        idle = logs.of("no_update")
        if idle and changing:
            lines.append(f"* {_plural(len(idle), 'step')} without an update, the last because {_reason(idle[-1])}.")
    for name, words in (
        ("hints/usable_share", "of the rollouts had the hints that their teacher needs"),
        ("groups/mixed", "of the groups had right and wrong rollouts"),
    ):
        _, values = curve(steps, name)
        if values:
            lines.append(f"* Usable: {sum(values) / len(values):.0%} {words}, on average over the steps.")
            break
    return [*lines, *_overlap(logs.of("overlap")), *_warnings(logs.of("warning"))]


def _given_task(task: Mapping[str, Any]) -> list[str]:
    """What is known of a task that was given from Python."""
    if "origin" not in task:
        return []
    return [
        f"* The task {task['name']} was {task['origin']}. Its problems are in `task/` (SHA-256 {task['data'][:12]}…); "
        f"verifier: {task['verifier']}."
    ]


def _overlap(records: Records) -> list[str]:
    if not records:
        return []
    shared = [r for r in records if r["normalised"]]
    if not shared:
        total = sum(record["problems"] for record in records)
        return [f"* Overlap: none of the {total} evaluation problems is in the training set."]
    counts = (f"{r['normalised']} of {r['problems']} of {r['set']} ({r['exact']} as written)" for r in shared)
    return [f"* **Overlap**: evaluation problems that are in the training set: {'; '.join(counts)}."]


def _warnings(records: Records) -> list[str]:
    if not records:
        return ["* Warnings: none."]
    more = [f"  * … {len(records) - _MAX_WARNINGS} more in events.jsonl"] if len(records) > _MAX_WARNINGS else []
    return ["* Warnings:", *(f"  * {one['message']}" for one in records[:_MAX_WARNINGS]), *more]


def _reason(record: Mapping[str, Any]) -> str:
    return str(record["message"]).rstrip(".")


def _sample(logs: Logs) -> list[str]:
    """The first response to the first evaluation problem, before and after training."""
    records = [record for record in (*logs.evaluations[:1], *logs.evaluations[1:][-1:]) if record.get("samples")]
    if not records:
        return []
    name = next(iter(records[0]["samples"]))
    shown = [(record["step"], record["samples"][name]) for record in records if name in record["samples"]]
    question = shown[0][1]
    shown = [(step, one) for step, one in shown if one["question"] == question["question"]]
    lines = ["## One problem, before and after", "", f"The first problem of {name}, not chosen for its answers:", ""]
    lines += [*_block(question["question"]), "", f"Reference answer: {_inline(question['answer'])}", ""]
    for step, one in shown:
        verdict = "right" if one["correct"] else "wrong"
        lines += [f"Step {step}: {verdict}, reward {one['reward']:g}", "", *_block(one["response"]), ""]
    return lines


def _block(text: str) -> list[str]:
    """A text of any content as a block of Markdown, cut if it is long."""
    cut = text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]} …"
    fence = "```"
    while fence in cut:
        fence += "`"
    return [fence, *(cut.strip("\n") or "(nothing)").split("\n"), fence]


def _inline(text: str) -> str:
    """A text of any content as a code span of Markdown."""
    line = " ".join(_block(" ".join(str(text).split()))[1:-1])
    fence = "`"
    while fence in line:
        fence += "`"
    return f"{fence} {line} {fence}" if "`" in line else f"`{line}`"


def _repetition(logs: Logs) -> list[str]:
    """The command that repeats the run, or, with a task from Python, what to call."""
    path = str(logs.folder / "config.yaml")
    if "origin" in logs.config["task"]:
        call = f"rlcsd.train(rlcsd.load_config({path!r}).model_copy(update={{'run_name': None}}), task=task)"
        return ["## Repeat", "", f"    {call}  # with the same task"]
    named = " run_name=null" if logs.config.get("run_name") else ""
    return ["## Repeat", "", f"    rlcsd train --config {_shell(path)}{named}"]


def _shell(path: str) -> str:
    return path if all(c.isalnum() or c in "/._-=,+" for c in path) else "'" + path.replace("'", "'\\''") + "'"


def _duration(logs: Logs) -> str:
    seconds = sum(record.get(name) or 0.0 for record in logs.metrics for name in ("time/step", "time/evaluation"))
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _phase_table(metrics: Records) -> list[str]:
    phases = sorted(
        {name for record in metrics for name in record if name.startswith("time/") and name != "time/evaluation"}
    )
    if not phases:
        return []
    columns = {  # heading: prefix of the metric, format
        "seconds per step (mean)": ("time", ".2f"),
        "tokens per second": ("perf/throughput", ",.0f"),
        "share of the device's peak": ("perf/mfu", ".1%"),
        "GiB allocated (peak)": ("perf/memory_allocated", ".2f"),
    }

    def cell(prefix: str, form: str, phase: str) -> str:
        values = curve(metrics, f"{prefix}/{phase}")[1]
        return format(sum(values) / len(values), form) if len(values) else ""

    rows = [[cell(*column, name.removeprefix("time/")) for column in columns.values()] for name in phases]
    used = [index for index in range(len(columns)) if any(row[index] for row in rows)]
    heads = ["phase", *(list(columns)[index] for index in used)]
    table = [
        [name.removeprefix("time/"), *(row[index] for index in used)] for name, row in zip(phases, rows, strict=True)
    ]
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *table)]
    return ["## Training", "", *lines, ""]


# ------------------------------------------------------------------ the figure


def draw_dynamics(logs: Logs, path: Path | None = None) -> Any:
    """Reward, entropy and length against the step, and held-out accuracy before and after, as a matplotlib figure.

    It is saved to `path` (PNG, and SVG beside it) if there is one. The strong lines are moving means of the faint ones.
    """
    with drawing(2, 2, 5.2, path) as (figure, axes):
        figure.suptitle(_title(logs.config), x=0.01, ha="left", fontweight="bold", fontsize=11)
        colour = colours([name := label_of_method(logs.config)])[name]
        for axis, (label, metric) in zip(axes.flat, CURVES, strict=False):
            steps, values = curve(logs.metrics, metric)
            axis.plot(steps, values, color=colour, alpha=0.25, linewidth=0.9)
            axis.plot(steps, smoothed(values), color=colour, linewidth=1.8)
            axis.set(title=label, xlabel="step")
        _draw_accuracy(axes[1][1], logs.evaluations, colour)
        figure.legend(*axes[1][1].get_legend_handles_labels(), loc="upper right", ncols=2, fontsize=9)
    return figure


def _draw_accuracy(axis: Any, evaluations: Records, colour: str) -> None:
    """Bars of the first evaluation, if there are several, and of the last; intervals are over problems."""
    last = summaries_of(evaluations[-1]) if evaluations else []
    shown = [s for s in last if not any(other.name.startswith(f"{s.name}: ") for other in last)]
    series: list[Series] = []
    if shown:
        if len(evaluations) > 1:
            first = {s.name: s for s in summaries_of(evaluations[0])}
            heights = _heights([first.get(s.name) for s in shown])
            series.append((f"step {evaluations[0]['step']}", BEFORE, *heights))
        series.append((f"step {evaluations[-1]['step']}", colour, *_heights(shown)))
    axis.set(title="Held-out accuracy, 95 % over problems")
    bars(axis, series, [s.name for s in shown])


def _heights(sets: Sequence[Summary | None]) -> tuple[list[float], list[tuple[float, float] | None]]:
    means = [float("nan") if one is None else one.mean for one in sets]
    intervals = [None if s is None or s.low is None or s.high is None else (s.low, s.high) for s in sets]
    return means, intervals


def _title(config: Mapping[str, Any]) -> str:
    """What a run is, in a few words."""
    task = str((config.get("task") or {}).get("name")).rpartition(":")[2]
    return f"{label_of_method(config)} on {task}, {config['model']['path']}, seed {config['seed']}"
