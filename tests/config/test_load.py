"""Composition, and one clear sentence for each kind of mistake."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcsd.config.load import build_method, choices, from_yaml, load, to_yaml
from rlcsd.errors import InputError
from rlcsd.methods import METHODS


def test_the_embedded_default_is_rlcsd_on_the_tiny_model():
    config = load()
    assert (config.model.path, config.method["name"], config.task["name"]) == ("tiny", "rlcsd", "kk_tiny")


@pytest.mark.parametrize("name", [name for name in METHODS if not name.startswith("opd")])
def test_published_hyper_parameters_are_every_methods_defaults(name):
    method = build_method(load([f"method={name}"])).config
    teacher = {"grpo": None, "opsd": "fixed", "opsd_ectr": "fixed", "sdpo": "ema", "srpo": "ema"}.get(name, "snapshot")
    assert getattr(method, "teacher", None) == teacher
    expected = {
        "grpo": {"epsilon": 0.2, "dual_clip": 3.0},
        "opsd": {"clip": 0.05, "alpha": 0.0, "top_k": 100, "add_tail": True, "hint_source": "gt_cot"},
        "sdpo": {"alpha": 0.5, "ratio_cap": 2.0, "top_k": 100, "ema_rate": 0.05, "hint_source": "gt_cot"},
        "srpo": {"entropy_beta": 1.0, "route": "advantage", "hint_source": "gt_cot"},
        "rlsd": {
            "lam": 0.5,
            "lam_decay_steps": 50,
            "epsilon_weight": 0.2,
            "snapshot_every": 10,
            "hint_source": "gt_cot",
        },
        "rlsd_ectr": {"lam": 0.5, "lam_decay_steps": 50, "k_max": 1, "hint_source": "self_rollout"},
        "opsd_ectr": {"alpha": 0.5, "log_wrong_floor": -5.0, "clip": 0.05, "k_max": 1, "hint_source": "self_rollout"},
        "rlcsd": {
            "tau": 0.02,
            "beta": 1.0,
            "lam": 0.5,
            "delta": 0.02,
            "eta": 1.0,
            "k_max": 4,
            "path_norm": "minibatch",
            "unusable": "drop",
        },
    }[name]
    assert {key: getattr(method, key) for key in expected} == expected


def test_of_a_file_and_a_named_choice_the_last_one_counts(tmp_path):
    (tmp_path / "mine.py").write_text("")
    assert load([f"task={tmp_path}/mine.py:task", "task=kk_tiny"]) == load()
    assert load(["task=kk_tiny", f"task={tmp_path}/mine.py:task"]).task["name"] == f"{tmp_path}/mine.py:task"


def test_every_choice_composes():
    for model in choices()["model"]:
        for method in choices()["method"]:
            if method != "plugin":
                teacher = ["method.teacher_model=tiny"] if method.startswith("opd") else []
                assert load([f"model={model}", f"method={method}", *teacher]).method["name"] == method


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["learning_rte=1"], ["learning_rte", "did you mean 'learning_rate'"]),
        (["sampling.max_tokns=1"], ["sampling.max_tokns", "did you mean 'sampling.max_tokens'"]),
        (["engine.thread=1"], ["did you mean 'engine.threads'"]),
        (["method=rlcds"], ["method=rlcds", "did you mean 'rlcsd'"]),
        (["model=tyni"], ["model=tyni", "did you mean 'tiny'"]),
        (["task=kk_tny"], ["task=kk_tny", "did you mean 'kk_tiny'"]),
        (["method.taux=1"], ["method.taux", "did you mean 'method.tau'"]),
        (["method.tau=-1"], ["method.tau=-1", "greater than 0"]),
        (["method.hint_source=own"], ["method.hint_source='own'", "self_rollout"]),
        (["steps=many"], ["steps='many'", "integer"]),
        (["learning_rate=0"], ["learning_rate=0", "greater than 0"]),
        (["group_size=1"], ["group_size=1", "at least 3"]),
        (["group_size=1", "method=grpo"], ["group_size=1", "at least 2"]),
        (["group_size=2"], ["group_size=2", "at least 3"]),
        (["prompts_per_update=5"], ["prompts_per_update=5", "prompts_per_step=16"]),
        (["nonsense"], ["nonsense", "key=value"]),
        (["steps=[1"], ["steps=[1"]),
        (["method=/nowhere/mine.py:Mine"], ["no file", "/nowhere/mine.py"]),
    ],
)
def test_a_mistake_is_named_with_its_value_and_what_would_be_right(overrides, words):
    with pytest.raises(InputError) as caught:
        load(overrides)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@given(rate=st.floats(1e-9, 1.0), group=st.integers(3, 64), tau=st.floats(1e-4, 10))
def test_overrides_arrive_and_survive_the_file(rate, group, tau, tmp_path_factory):
    config = load([f"learning_rate={rate!r}", f"group_size={group}", f"method.tau={tau!r}"])
    assert (config.learning_rate, config.group_size, config.method["tau"]) == (rate, group, tau)
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(to_yaml(config))
    assert from_yaml(path) == config


def test_a_config_file_that_is_none_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        from_yaml(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text("- a list")
    with pytest.raises(InputError, match="mapping"):
        from_yaml(tmp_path / "config.yaml")
