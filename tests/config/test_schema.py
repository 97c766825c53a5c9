"""docs/running.md lists the keys that a resumed run may change."""

from __future__ import annotations

import re
from pathlib import Path

from rlcsd.config.schema import may_change_on_resume


def test_the_page_lists_the_keys_that_may_change():
    page = (Path(__file__).parents[2] / "docs" / "running.md").read_text(encoding="utf-8")
    listed = page.split("<!-- may change -->")[1].split("\n\n")[0]
    assert set(re.findall(r"`([^`]+)`", listed)) == set(may_change_on_resume())
