"""Names of other projects and former names of ours, and what an unknown key is answered."""

from __future__ import annotations

import pytest
import yaml

from rlcsd.config.load import choices, from_yaml, load, to_yaml
from rlcsd.config.names import other_names, page
from rlcsd.config.schema import ENGINES, Config
from rlcsd.errors import InputError
from rlcsd.methods import METHODS
from rlcsd.tasks.registry import task_parameters
from rlcsd.validation import known_keys


def complaint(*overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load(overrides)
    return str(caught.value)


def test_every_target_of_the_table_is_a_key():
    keys = known_keys(Config) | {key for name, engine in ENGINES.items() for key in known_keys(engine, "engine.")}
    keys |= {key for method in METHODS.values() for key in known_keys(method.Config, "method.")}
    tasks = [task_parameters({"name": "x", "kind": "files", "train": "x"})]
    keys |= {key for task in tasks for key in known_keys(type(task), "task.")}
    assert len(other_names()) >= 100
    assert [other for other in other_names() if other.key is not None and other.key not in keys] == []
    assert [other for other in other_names() if other.key is None and len(other.remark.split()) < 4] == []


def test_no_name_of_the_table_is_itself_a_key_of_another_meaning():
    keys = known_keys(Config)
    assert [other.name for other in other_names() if other.name in keys] == []


@pytest.mark.parametrize(
    ("key", "ours"),
    [
        ("beta", "kl_coefficient"),
        ("num_generations", "group_size"),
        ("max_completion_length", "sampling.max_tokens"),
        ("temperature", "sampling.temperature"),
        ("epsilon", "method.epsilon"),
        ("lora_r", "model.lora.rank"),
        ("lora_rank", "model.lora.rank"),
        ("per_device_train_batch_size", "prompts_per_update"),
        ("train_batch_size", "prompts_per_step"),
        ("data.train_batch_size", "prompts_per_step"),
        ("ppo_mini_batch_size", "prompts_per_update"),
        ("clip_ratio", "method.epsilon"),
        ("kl_loss_coef", "kl_coefficient"),
        ("rollout.n", "group_size"),
        ("actor_rollout_ref.rollout.n", "group_size"),
        ("actor_rollout_ref.actor.optim.lr", "learning_rate"),
        ("sampling.max_completion_length", "sampling.max_tokens"),
        ("n_samples_per_prompt", "group_size"),
        ("init_kl_coef", "kl_coefficient"),
    ],
)
def test_a_name_of_another_project_is_answered_with_ours(key, ours):
    assert f"{key}: unknown key; did you mean '{ours}'" in complaint(f"{key}=1")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("epsilon_high=0.3", "did you mean 'method.epsilon_high' (with loss_type=cispo TRL's is the largest ratio"),
        ("num_iterations=2", "TRL's num_iterations has no counterpart here: each response is used in one update"),
        ("method.advantage_std=false", "its name is 'method.estimator' now (true is group, false is mean)"),
        ("tensor_model_parallel_size=2", "did you mean 'engine.tensor_parallel' (a key of engine=verl)"),
        ("engine.tensor_parallel=2", "engine.tensor_parallel: unknown key; it is a key of engine=verl"),
        ("method.alpha=2", "method.alpha: unknown key; it is a key of method=opsd"),
        ("method.spare=0.5", "method.spare: unknown key; it is a key of method=rlcsd_extended"),
        ("method.learning_rate=1", "did you mean 'learning_rate'"),
        ("max_tokens=5", "did you mean 'sampling.max_tokens'"),
        ("model.name=x", "model.name: unknown key; known: model.chat_template, model.dtype"),
        ("sampling.x=1", "known: sampling.max_tokens, sampling.temperature, sampling.top_k, sampling.top_p"),
        ("grad_norm=1", "grad_norm: unknown key; its name is 'max_grad_norm' now"),
        ("correction_cap=1", "correction_cap: unknown key; its name is 'importance_weight_cap' now"),
        ("variant=spares", "variant=spares: its name is 'spare_agreed_tokens' now"),
    ],
)
def test_an_unknown_key_is_answered_with_what_would_be_right(override, words):
    assert words in complaint(override)


def test_the_config_of_an_older_run_is_read(tmp_path):
    values = yaml.safe_load(to_yaml(load(["max_grad_norm=0.3", "importance_weight_cap=5"])))
    values["grad_norm"], values["correction_cap"] = values.pop("max_grad_norm"), values.pop("importance_weight_cap")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    config = from_yaml(tmp_path / "config.yaml")
    assert (config.max_grad_norm, config.importance_weight_cap) == (0.3, 5)


@pytest.mark.parametrize(("divided", "estimator"), [(True, "group"), (False, "mean")])
def test_the_switch_of_the_standard_deviation_is_read(divided, estimator, tmp_path):
    values = yaml.safe_load(to_yaml(load(["method=sdpo"])))
    for key in ("estimator", "constant_length"):
        del values["method"][key]
    values["method"]["advantage_std"] = divided
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    assert from_yaml(tmp_path / "config.yaml").method.estimator == estimator


def test_the_former_value_of_the_rollout_correction_is_read(tmp_path):
    values = yaml.safe_load(to_yaml(load([])))
    assert values["rollout_correction"] == "token_truncate"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values | {"rollout_correction": "token"}))
    assert from_yaml(tmp_path / "config.yaml").rollout_correction == "token_truncate"
    assert load(["rollout_correction=token"]).rollout_correction == "token_truncate"


@pytest.mark.parametrize(("spare", "name"), [(None, "rlcsd"), (0.5, "rlcsd_extended")])
def test_the_switches_that_rlcsd_had_are_read(spare, name, tmp_path):
    values = yaml.safe_load(to_yaml(load([])))
    values["method"] |= {"k_correct": 1, "evidence": "contrast", "shift": True, "weight_cap": None, "spare": spare}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    method = from_yaml(tmp_path / "config.yaml").method
    assert (method.name, getattr(method, "spare", None)) == (name, spare)


def test_the_page_has_every_name_of_the_table():
    assert page().count("\n| `") == len(other_names())


def test_group_choices_are_no_names_of_the_table():
    assert not {other.name for other in other_names()} & {name for names in choices().values() for name in names}
