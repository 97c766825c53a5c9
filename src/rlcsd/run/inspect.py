"""`rlcsd inspect` and `rlcsd.inspect`: the token signal of hints, as a run recorded it or measured on a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ..config.load import as_config, build_method
from ..config.schema import Config
from ..engine.interface import build_engine
from ..errors import InputError
from ..inspection import signal_tables as tables_of
from ..inspection.signals import (
    KINDS,
    SIGNALS,
    SignalSettings,
    SignalTable,
    kinds_of,
    sample_groups,
    score_groups,
)
from ..report.figures import draw_signals
from ..report.rollout_reader import LoggedRollout, read_groups
from ..tasks.registry import build_task
from .folder import with_newest_checkpoint


@dataclass(frozen=True)
class Inspection:
    """Signals of tokens by the name of the hint template; the first is the run's own, or that of the config.

    As text it is what `rlcsd inspect` prints.
    """

    tables: Mapping[str, SignalTable]

    @property
    def table(self) -> SignalTable:
        return next(iter(self.tables.values()))

    def plot(self, path: str | Path | None = None) -> Any:
        """Mean signals by kind of token as a matplotlib figure, which a notebook shows; also saved to `path`, if given.

        Raises:
            InputError: no teacher was asked about any token.
        """
        if not len(self.table.kind):
            raise InputError(f"inspect: {tables_of.why_no_signal(self.table)}")
        return draw_signals(self.table.means(), None if path is None else Path(path))

    def __str__(self) -> str:
        table = self.table
        share = "teacher asked about {:.3f} of the rollouts" if "recorded" in self.tables else "usable rollouts {:.3f}"
        head = f"accuracy {table.accuracy:.3f}, {share.format(table.usable)}"
        if not len(table.kind):
            return f"{head}\n\n{tables_of.why_no_signal(table)}"
        shares = tables_of.share_table(table, table.kind, KINDS)
        parts = [head, tables_of.mean_table(table), f"How the signal divides, kinds by words:\n\n{shares}"]
        kinds = tables_of.shared_or_own(table)
        if kinds is None:
            nothing = "Without wrong hints nothing tells what a hint does as such from what a correct one does."
            return "\n\n".join([*parts, nothing])
        common = "shared: at least half of the larger gap is common to h_c and h_w"
        shares = tables_of.share_table(table, kinds, (tables_of.SHARED, tables_of.OWN, tables_of.QUIET))
        parts.append(f"The same without a list of words ({common}):\n\n{shares}")
        if text := tables_of.table_by_k(table):
            parts.append(f"By the number of wrong hints, over rollouts that have two or more:\n\n{text}")
        if len(self.tables) > 1:
            parts.append(f"By the wording around the hint:\n\n{tables_of.table_by_template(dict(self.tables))}")
        errors = {target: table.sign_errors(target) for target in ("correct", "wrong")}
        lines = [
            f"conclusion tokens of {target} rollouts: wrong sign in {share:.1%} of rollouts"
            for target, share in errors.items()
            if share is not None
        ]
        return "\n\n".join([*parts, *(["\n".join(lines)] if lines else [])])

    __repr__ = __str__


def inspect(
    source: str | Path | Config | Mapping[str, Any] | Sequence[str] | None = None,
    problems: int = 32,
    templates: bool = False,
) -> Inspection:
    """The token signal of hints, by kind of token.

    >>> import rlcsd
    >>> print(str(rlcsd.inspect("runs/mine"))[:8])
    accuracy

    Args:
        source: a run's folder, whose recorded rollouts are read (any method); or a config in any form that
            `rlcsd.train` takes (a YAML file too), whose model is measured (a contrastive method).
        problems: of how many training problems groups are sampled; for a config only.
        templates: also with each of the wordings around a hint; for a config only.

    Raises:
        InputError: a run without recorded signals, or a config without wrong hints.
    """
    if problems < 1:
        raise InputError(f"problems={problems}: must be at least 1")
    if isinstance(source, str | Path) and not Path(source).is_file():
        if templates:
            raise InputError(f"templates: needs a model to ask; use model.path={source} instead of the run folder")
        return Inspection({"recorded": _recorded(Path(source))})
    return Inspection(_measured(as_config(source), problems, templates))


def _measured(config: Config, problems: int, templates: bool) -> dict[str, SignalTable]:
    """Signals of groups that the config's model samples now, by the name of the hint template."""
    config = with_newest_checkpoint(config)
    method = build_method(config)
    if not method.needs_contrast:
        raise InputError(
            f"method={config.method.name}: it asks for no wrong hints; measure the same model and task with a "
            "contrastive method, for example method=rlcsd, or give a run folder"
        )
    task = build_task(config.task)
    settings = SignalSettings(
        config.group_size,
        config.sampling.settings(),
        config.model.thinking_student,
        config.model.thinking_teacher,
        config.max_teacher_tokens,
        config.seed,
    )
    some = replace(task, train=task.train[:problems])
    own = method.config.template
    names = [own]
    if templates and method.config.hint_source == "answer_pair":
        raise InputError("templates: with method.hint_source=answer_pair no words stand around a hint")
    if templates:
        names += [name for name in get_args(type(method.config).model_fields["template"].annotation) if name != own]
    methods = {name: type(method)(method.config.model_copy(update={"template": name})) for name in names}
    with closing(build_engine(config, method)) as engine:
        groups = sample_groups(engine, some, method, settings)
        return {name: score_groups(engine, groups, some, methods[name], settings) for name in names}


def _recorded(folder: Path) -> SignalTable:
    """Signals of all the rollouts that a run has recorded."""
    rollouts = [rollout for group in read_groups(folder) for rollout in group.rollouts]
    asked = [one for one in rollouts if "teacher_gap" in one.signals]
    if not asked:
        raise InputError(
            f"{folder}: no teacher was asked about any recorded rollout; measure its model instead: "
            f"`rlcsd inspect model.path={folder} method=rlcsd`"
        )
    present = [name for name in SIGNALS if all(name in one.signals for one in asked)]

    def spans(one: LoggedRollout) -> list[tuple[int, int]]:
        return [(int(start), int(end)) for start, end in one.spans]

    return SignalTable(
        np.array([kind for one in asked for kind in kinds_of(one.text, spans(one))]),
        np.repeat([bool(one.facts["correct"]) for one in asked], [len(one.spans) for one in asked]),
        np.repeat(np.arange(len(asked)), [len(one.spans) for one in asked]),
        {name: np.concatenate([one.signals[name] for one in asked]) for name in present},
        float(np.mean([one.facts["correct"] for one in rollouts])),
        len(asked) / len(rollouts),
        len(rollouts),
    )
