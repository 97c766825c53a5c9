"""The sweep file of the plug-in table names nine experiments that compose."""

from __future__ import annotations

import re
from pathlib import Path

from rlcsd.config.load import load

SWEEP = Path(__file__).parents[2] / "examples" / "plugin_qwen3_4b.sh"


def test_the_nine_experiments_compose_with_the_sources_of_their_names():
    lines = re.findall(r'^train (\S+)\s+(.*) "\$@"$', SWEEP.read_text(), flags=re.M)
    assert len(lines) == 9
    for name, overrides in lines:
        config = load(["model=qwen3_4b", "task=logic_kk", "kl_coefficient=0", *overrides.split()])
        method, source = name.split("-")
        hint = config.method["hint_source"]
        one_sided = config.method.get("evidence") == "one_sided"
        contrast, extended = source == "contrast", method == "rlcsd" and source != "contrast"
        name = f"{method}_ectr" if contrast and method != "rlcsd" else f"{method}_extended" if extended else method
        assert config.method["name"] == name
        assert (hint == "gt_cot") == (source == "solution")
        assert one_sided == (method == "rlcsd" and source != "contrast")
