"""The schema: typed sections, refusals across sections, and the keys that a resumed run may change."""

from __future__ import annotations

import pickle

import pytest
import yaml
from pydantic import ValidationError

from rlcsd.config.load import build_method, from_yaml, load, to_yaml, validated
from rlcsd.config.schema import Config, SamplingConfig, may_change_on_resume
from rlcsd.errors import InputError
from rlcsd.methods import METHODS
from rlcsd.tasks.registry import build_task

METHOD = """
from pydantic import Field, model_validator
from rlcsd.methods import METHODS, MethodConfig

class MineConfig(METHODS["grpo"].Config):
    low: int = Field(1, description="low")
    high: int = Field(2, description="high")

    @model_validator(mode="after")
    def _ordered(self):
        if self.low > self.high:
            raise ValueError("low must be at most high")
        return self

class Mine(METHODS["grpo"]):
    Config = MineConfig
"""


def test_a_section_that_may_change_stands_for_its_keys_and_others_are_listed_one_by_one():
    keys = may_change_on_resume()
    assert "guard" in keys and not [key for key in keys if key.startswith("guard.")]
    assert "evaluation.every" in keys and "evaluation" not in keys and "learning_rate" not in keys
    assert {"engine.vllm_memory", "engine.nodes"} <= set(keys)  # of both engines


@pytest.mark.parametrize("name", ["grpo", "rlcsd", "sdpo"])
def test_the_method_section_is_the_methods_own_frozen_config(name):
    config = load([f"method={name}"])
    assert type(config.method) is METHODS[name].Config
    with pytest.raises(ValidationError):
        config.method.reduction = "sequence"
    assert Config(method={"name": name}).method == config.method
    assert type(build_method(config)) is METHODS[name]


def test_without_any_choice_the_method_is_the_one_of_the_groups():
    assert Config().method == load().method


def test_a_method_in_a_file_is_checked_saved_and_sent_to_other_processes(tmp_path):
    (tmp_path / "mine.py").write_text(METHOD)
    overrides = [f"method={tmp_path}/mine.py:Mine", "method.high=7"]
    config = load(overrides)
    assert (config.method.low, config.method.high) == (1, 7)
    assert build_method(config).config.high == 7
    assert pickle.loads(pickle.dumps(config)).model_dump() == config.model_dump()
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert from_yaml(tmp_path / "config.yaml").method.high == 7
    with pytest.raises(InputError, match=r"^method.hihg: unknown key; did you mean 'method.high'\?$"):
        load([overrides[0], "method.hihg=7"])
    with pytest.raises(InputError, match=r"^method: low must be at most high$"):
        load([overrides[0], "method.low=9"])


def test_a_message_that_names_its_key_is_left_as_it_is():
    with pytest.raises(InputError, match=r"^method.teacher_model: needed with method.teacher=model, and only there$"):
        load(["method.teacher=model"])
    with pytest.raises(InputError, match=r"^engine.sequence_parallel=3: must divide the number of GPUs, 1 × 8$"):
        load(["engine=verl", "engine.sequence_parallel=3"])
    with pytest.raises(InputError, match=r"^method=nobody: unknown method; known: grpo"):
        validated({"method": {"name": "nobody"}})


def test_the_file_holds_the_tasks_parameters_that_were_given_and_no_others():
    config = load(["task=roll_call", "task.eval_per_size=7"])
    assert config.task.eval_per_size == 7 and config.task.worked == 0.0
    task = yaml.safe_load(to_yaml(config))["task"]
    assert task["eval_per_size"] == 7 and "worked" not in task
    assert validated(config.model_dump()).task == config.task


def test_a_config_without_a_task_is_for_a_task_that_is_passed_to_the_run():
    config = Config(sampling=SamplingConfig(max_tokens=5))
    assert config.model_dump()["task"] == {}
    assert validated(config.model_dump()) == config
    with pytest.raises(InputError, match=r"^task: none is chosen"):
        build_task(config.task)


def test_all_mistakes_of_a_config_are_named_at_once():
    mistakes = ["group_size=0", "sampling.top_p=2", "method.tau=-1", "task.train_per_size=0", "engine.device=3"]
    with pytest.raises(InputError) as found:
        load([*mistakes, "method=rlcsd"])
    lines = str(found.value).splitlines()
    assert sorted(line.partition(":")[0] for line in lines) == sorted(mistakes)
    with pytest.raises(InputError, match="leraning_rate: unknown key") as found:
        load(["leraning_rate=1", "stepss=3"])
    assert len(str(found.value).splitlines()) == 2


def test_a_group_of_one_serves_methods_that_read_no_advantage():
    for name in ("opsa", "opsd", "sdpo"):
        assert load([f"method={name}", "group_size=1"]).group_size == 1
    for name in ("grpo", "srpo", "sdar", "rlsd"):
        with pytest.raises(InputError, match="a group advantage needs at least 2 rollouts"):
            load([f"method={name}", "group_size=1"])
