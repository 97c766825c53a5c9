"""docs/metrics.md names what runs log, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlcsd.run import Run
from rlcsd.storage import read_jsonl
from tests.methods.catalogue import EIGHT, overrides_of

PHASES = ("sample", "score", "update")
PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def documented() -> set[str]:
    """Every name of the page; `/b` behind `a/x` in one cell stands for `a/b`, and `<set>` or `<name>` for any words."""
    names: set[str] = set()
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        prefix = ""
        for name in re.findall(r"`([^`]+)`", line.split("|")[1]) if line.startswith("| `") else []:
            full = prefix + name if name.startswith("/") else name
            prefix = full.rpartition("/")[0] if not name.startswith("/") else prefix
            names.add(full)
    return names


def matches(name: str, pattern: str) -> bool:
    return re.fullmatch(re.sub("<set>|<name>", ".+", re.escape(pattern)), name) is not None


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    from rlcsd.config.load import load

    names: set[str] = set()
    masked = [
        *("sampling_mask=true", "sampling.top_k=20", "sampling.top_p=0.95"),
        *("rollout_correction=token_mask", "rollout_rejection=[0.1,10]"),
    ]
    for method in [*EIGHT, "dapo", "opsa", "sdar"]:
        folder = tmp_path_factory.mktemp(method)
        config = load(
            [
                *overrides_of(method),
                f"refill_batches={int(method == 'dapo')}",
                f"loss_normalisation={'micro_batch' if method == 'rlcsd' else 'mini_batch'}",
                *(masked if method == "opsa" else []),
                "steps=1",
                "prompts_per_step=4",
                "prompts_per_update=4",
                "group_size=4",
                "task.train_sizes=[3]",
                "task.train_per_size=8",
                "task.unseen_sizes=[]",
                "task.eval_per_size=2",
                "task.forms=[atom,not,and,or,iff,if]",
                "sampling.max_tokens=96",
                "evaluation.sampling.max_tokens=16",
                f"output_dir={folder}",
                "figures=false",
                "trackers=[]",
                "engine.threads=1",
                "engine.self_check=false",
                "engine.peak_tflops=0.1",
            ]
        )
        result = Run(config).execute()
        names |= {name for record in read_jsonl(Path(result["folder"]) / "metrics.jsonl") for name in record} - {"step"}
    return names


def test_every_logged_name_is_documented(logged):
    unknown = {name for name in logged if not any(matches(name, pattern) for pattern in documented())}
    assert not unknown


def test_every_documented_name_is_logged(logged):
    sometimes = {"hints/without_correct", "hints/without_wrong", "rlcsd/selected_weight", "rlcsd/residual_agrees"}
    sometimes |= {"hints/without_feedback"}
    sometimes |= {f"perf/memory_{kind}/{phase}" for kind in ("allocated", "reserved") for phase in PHASES}  # of GPUs
    sometimes |= {f"style/{name}" for name in ("right_verdicts", "worked", "interjections")}  # of the roll call alone
    missing = {pattern for pattern in documented() if not any(matches(name, pattern) for name in logged)} - sometimes
    assert not missing
