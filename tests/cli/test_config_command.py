"""Every key is explained: type, range, value and meaning."""

from __future__ import annotations

import pytest
import yaml

from rlcsd.cli import main
from rlcsd.cli.config_command import keys_of
from rlcsd.config.load import choices, load, to_yaml
from rlcsd.methods import METHODS
from tests.methods.catalogue import overrides_of


def dotted(values: dict, prefix: str = "") -> set[str]:
    names = set()
    for name, value in values.items():
        names |= dotted(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {prefix + name}
    return names


@pytest.mark.parametrize("method", METHODS)
def test_every_key_of_a_resolved_config_has_a_type_and_a_meaning(method):
    config = load(overrides_of(method))
    keys = {key.name: key for key in keys_of(config)}
    assert dotted(yaml.safe_load(to_yaml(config))) <= set(keys)
    assert not [name for name, key in keys.items() if not key.description or key.type == "any value"]


def test_types_and_ranges_are_in_words(capsys):
    assert main(["config", "keys", "--only", "sampling.", "sampling.top_p=0.5"]) == 0
    text = capsys.readouterr().out
    assert (
        "sampling.top_p = 0.5\n    number ≤ 1, > 0. " in text or "sampling.top_p = 0.5\n    number > 0, ≤ 1. " in text
    )
    assert "sampling.max_tokens = 256\n    integer ≥ 1. " in text
    assert main(["config", "keys", "--only", "method.teacher", "method=sdpo"]) == 0
    assert "one of fixed, ema, snapshot, policy, model" in capsys.readouterr().out
    assert main(["config", "keys", "--only", "nothing"]) == 2
    assert "no key begins so" in capsys.readouterr().err


def test_named_tasks_have_explained_parameters():
    for name in choices()["task"]:
        if name in ("plugin", "files", "verl"):
            continue
        needed = {"reasoning_gym": ["task.dataset=countdown"], "environment": ["task.environment=mine"]}
        keys = [key for key in keys_of(load([f"task={name}", *needed.get(name, [])])) if key.name.startswith("task.")]
        assert len(keys) > 5 and all(key.description for key in keys)
