"""The folder of a stand-alone evaluation: samples as they come, so that an interrupted evaluation can resume, then
the table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..config.load import to_yaml
from ..config.schema import Config
from ..errors import InputError
from ..folders import check_new_folder
from .summary import Answered, Summary, markdown_table

_COLUMNS = ("responses", "rewards", "lengths", "finished", "passed")


def _line(item: Answered) -> str:
    return json.dumps(asdict(item), ensure_ascii=False) + "\n"


def _read(line: str) -> Answered | None:
    """An answer from its line; None for a line that was cut off in writing or is none of ours."""
    try:
        record: dict[str, Any] = json.loads(line)
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
        }
        item = Answered(**fields)
        return item if all(isinstance(getattr(item, name), tuple) for name in _COLUMNS) else None
    except (json.JSONDecodeError, TypeError, AttributeError):
        return None


class EvaluationFolder:
    """`config.yaml` and `samples.jsonl` from the start, `eval.md` and `eval.json` at the end.

    Raises:
        InputError: the folder holds anything but an evaluation of this very config.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        self.folder, self.config = folder, to_yaml(config)
        self.samples = folder / "samples.jsonl"
        if not (folder / "config.yaml").is_file():
            check_new_folder(folder)
        elif (folder / "config.yaml").read_text(encoding="utf-8", errors="replace") != self.config:
            raise InputError(f"--out {folder}: it holds an evaluation with another config; choose another place")

    def open(self) -> list[Answered]:
        """Make the folder; returns the answers that are there already. Raises InputError if it cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "config.yaml").write_text(self.config, encoding="utf-8")
        except OSError as error:
            raise InputError(f"--out {self.folder}: cannot be written ({error.strerror})") from None
        if not self.samples.is_file():
            return []
        answers = [_read(line) for line in self.samples.read_text(encoding="utf-8", errors="replace").split("\n")]
        kept = [item for item in answers if item is not None]
        self.samples.write_text("".join(map(_line, kept)), encoding="utf-8")
        return kept

    def keep(self, batch: Sequence[Answered]) -> None:
        with self.samples.open("a", encoding="utf-8") as file:
            file.writelines(map(_line, batch))

    def finish(self, summaries: Sequence[Summary], answered: Sequence[Answered]) -> None:
        self.samples.write_text("".join(map(_line, answered)), encoding="utf-8")
        (self.folder / "eval.md").write_text(markdown_table(summaries) + "\n", encoding="utf-8")
        (self.folder / "eval.json").write_text(
            json.dumps([summary.as_dict() for summary in summaries], indent=2), encoding="utf-8"
        )
