"""Every mistake of the table ends in one sentence and exit code 2, and leaves nothing behind."""

from __future__ import annotations

import html
from pathlib import Path

import pytest

from .mistakes import TABLE, Mistake, _cell, answer

PAGE = Path(__file__).parents[1] / "docs" / "mistakes.md"


@pytest.mark.parametrize("mistake", TABLE, ids=lambda mistake: f"{mistake.command[:60]} {mistake.words[:30]}")
def test_a_mistake_is_one_sentence_and_exit_code_two(mistake: Mistake, tmp_path):
    code, said, left = answer(mistake, tmp_path)
    assert code == 2
    assert said.startswith("rlcsd: ")
    assert said.count("\n") == 1
    assert mistake.words in said
    assert mistake.late or not left


def test_the_page_is_made_from_the_table():
    rows = [line.split("` ")[0].split("`<br>")[0].removeprefix("| `") for line in PAGE.read_text().splitlines()[7:]]
    assert [html.unescape(row) for row in rows] == [_cell(mistake.command) for mistake in TABLE]
    assert len(rows) >= 120
    assert str(PAGE.parents[1]) not in PAGE.read_text(), "a path of the machine that made the page"
