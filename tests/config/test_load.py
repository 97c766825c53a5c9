"""Composition, and one clear sentence for each kind of mistake."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import rlcsd
from rlcsd.config.load import (
    as_config,
    as_overrides,
    build_method,
    changed,
    choices,
    from_yaml,
    load,
    to_yaml,
    validated,
)
from rlcsd.errors import InputError
from rlcsd.methods import METHODS, OBJECTIVES
from tests.methods.catalogue import BASELINES, EIGHT, overrides_of


def test_the_embedded_default_is_rlcsd_on_the_tiny_model():
    config = load()
    assert (config.model.path, config.method.name, config.task.name) == ("tiny", "rlcsd", "kk_tiny")


@pytest.mark.parametrize("name", EIGHT)
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
    assert load(["task=kk_tiny", f"task={tmp_path}/mine.py:task"]).task.name == f"{tmp_path}/mine.py:task"


def test_every_choice_composes():
    for model in choices()["model"]:
        assert load([f"model={model}"]).method.name == "rlcsd"
    for method in choices()["method"]:
        if method != "plugin":
            assert load(overrides_of(method) if method in METHODS else [f"method={method}"]).method.name == method


def test_a_mistake_is_one_input_error_that_names_key_and_value():
    """Each kind of mistake is tried in tests/cli/test_mistakes.py."""
    with pytest.raises(InputError, match=r"^learning_rate=0: must be greater than 0$"):
        load(["learning_rate=0"])
    with pytest.raises(InputError, match=r"^method.tau=-1: must be greater than 0$"):
        as_config({"method": {"tau": -1}})
    with pytest.raises(InputError, match=r"^group_size=2: .* at least 3 rollouts$"):
        changed(load(), ["group_size=2"])


@given(rate=st.floats(1e-9, 1.0), group=st.integers(3, 64), tau=st.floats(1e-4, 10))
def test_overrides_arrive_and_survive_the_file(rate, group, tau, tmp_path_factory):
    config = load([f"learning_rate={rate!r}", f"group_size={group}", f"method.tau={tau!r}"])
    assert (config.learning_rate, config.group_size, config.method.tau) == (rate, group, tau)
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(to_yaml(config))
    assert from_yaml(path) == config


def test_a_config_file_that_is_none_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        from_yaml(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text("- a list")
    with pytest.raises(InputError, match="mapping"):
        from_yaml(tmp_path / "config.yaml")


# ------------------------------------------------------------------ test_variants
# The other column of the table, and the published values of each method.


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["method=rlcsd"], {"method.path_norm": "rollout"}),
        (["method=rlcsd", "task=logic_kk"], {"method.path_norm": "rollout", "learning_rate": 5e-6}),
        (["method=opsd", "task=logic_kk"], {
            "model.lora.rank": 64, "model.lora.alpha": 128, "learning_rate": 5e-6, "prompts_per_step": 32, "sampling.temperature": 1.1,
            "sampling.max_tokens": 1024, "model.thinking_student": False, "model.thinking_teacher": True}),
        (["method=sdpo"], {"method.hint_source": "own_rollout", "method.strip_thinking": True, "method.estimator": "mean",
                           "learning_rate": 1e-5, "method.unusable": "drop"}),
        (["method=srpo"], {"method.route": "reward"}),
        (["method=rlsd"], {"method.hint_source": "answer_only", "method.reduction": "sequence"}),
        (["method=grpo", "task=logic_kk"], {"method.reduction": "sequence", "prompts_per_update": 64, "kl_coefficient": 0.04}),
    ],
)  # fmt: skip
def test_the_authors_column(overrides, expected):
    config = load([*overrides, "variant=authors"]).model_dump()
    for key, value in expected.items():
        found = config
        for part in key.split("."):
            found = found[part]
        assert found == value, key


@pytest.mark.parametrize("method", ["grpo", "opsd", "sdpo", "srpo", "rlsd", "rlcsd", "opsd_ectr", "rlsd_ectr"])
def test_as_run_changes_what_the_code_did_and_nothing_else(method):
    chosen = ["model=qwen3_4b", "task=logic_kk", f"method={method}"]
    published, as_run = load(chosen), load([*chosen, "variant=as_run"])
    expected = {
        "model": published.model.model_copy(update={"dtype": "bfloat16", "master_dtype": "bfloat16"}),
        "rollout_correction": "none",
        "shuffle": False,
    }
    if method != "grpo":
        expected["loss_normalisation"] = "micro_batch"
    if method.startswith("opsd"):
        expected["method"] = published.method.model_copy(update={"teacher": "policy"})
    assert as_run == published.model_copy(update=expected)
    assert as_run.normalisation_tokens == 40960 and published.model.master_dtype == "float32"


def test_spare_agreed_tokens_is_the_arm_of_the_study():
    method = load(["variant=spare_agreed_tokens", "method.spare=0.7"]).method
    assert (method.spare, method.weight_cap, method.unusable) == (0.7, 3, "plain")


def test_later_overrides_win_over_the_variant():
    assert load(["method=sdpo", "variant=authors", "learning_rate=3e-5"]).learning_rate == 3e-5
    assert load(["variant=published"]) == load()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["variant=mine"], "must be one of published, as_run, authors, pw_opsd, sdft, spare_agreed_tokens"),
        (["variant=authors", "method=opsd_ectr"], "variant=authors: there is none for method=opsd_ectr"),
        (
            ["variant=spare_agreed_tokens", "method=grpo"],
            "variant=spare_agreed_tokens: there is none for method=grpo; it exists for rlcsd",
        ),
    ],
)
def test_a_variant_that_is_not_there(overrides, words):
    with pytest.raises(InputError, match=words):
        load(overrides)


@pytest.mark.parametrize(
    ("method", "kl", "norm"),
    [("grpo", 0.001, 1.0), ("opsd", 0.0, 0.1), ("sdpo", 0.0, 1.0), ("srpo", 0.0, 1.0), ("rlsd", 0.0, 1.0), ("rlcsd", 0.0, 1.0),
     ("opsd_ectr", 0.001, 0.1), ("rlsd_ectr", 0.001, 1.0)],
)  # fmt: skip
def test_the_published_logic_experiment(method, kl, norm):
    c = load([f"method={method}", "task=logic_kk"])
    assert (c.learning_rate, c.weight_decay, c.warmup_steps, c.group_size) == (1e-6, 0.01, 50, 8)
    assert (c.prompts_per_step, c.prompts_per_update, c.epochs, c.steps) == (64, 16, 30, None)
    assert (c.max_prompt_tokens, c.sampling.max_tokens, c.evaluation.sampling.max_tokens) == (2048, 16384, 38912)
    assert (c.sampling.temperature, c.sampling.top_p, c.sampling.top_k) == (1.0, 0.95, 20)
    e = c.evaluation
    assert (e.every, e.before, e.samples, e.sampling.temperature, e.sampling.top_p, e.sampling.top_k) == (
        50,
        True,
        1,
        0.6,
        0.95,
        20,
    )
    assert (c.rollout_correction, c.importance_weight_cap, c.save_every, c.model.lora) == (
        "token_truncate",
        2.0,
        50,
        None,
    )
    assert (c.model.thinking_student, c.model.thinking_teacher) == (True, True)
    assert (c.kl_coefficient, c.max_grad_norm) == (kl, norm)
    assert c.task.train_sizes == [4, 5, 6, 7, 8]
    assert c.task.unseen_sizes == [9, 10, 11]


# ------------------------------------------------------------------ test_plugin_sweep
# The sweep file of the plug-in table names nine experiments that compose.

SWEEP = Path(__file__).parents[2] / "examples" / "plugin_qwen3_4b.sh"


def test_the_nine_experiments_compose_with_the_sources_of_their_names():
    lines = re.findall(r'^train (\S+)\s+(.*) "\$@"$', SWEEP.read_text(), flags=re.M)
    assert len(lines) == 9
    for name, overrides in lines:
        config = load(["model=qwen3_4b", "task=logic_kk", "kl_coefficient=0", *overrides.split()])
        method, source = name.split("-")
        hint = config.method.hint_source
        one_sided = getattr(config.method, "evidence", None) == "one_sided"
        contrast, extended = source == "contrast", method == "rlcsd" and source != "contrast"
        name = f"{method}_ectr" if contrast and method != "rlcsd" else f"{method}_extended" if extended else method
        assert config.method.name == name
        assert (hint == "gt_cot") == (source == "solution")
        assert one_sided == (method == "rlcsd" and source != "contrast")


OWN = [["task=files", "task.train=x.jsonl"], ["task=mine.py:task"], ["task=own"], ["task=reasoning_gym", "task.dataset=countdown"],
       ["task=environment", "task.environment=x"]]  # fmt: skip


@pytest.mark.parametrize(
    "model", [[], ["model.path=some/model"], ["model.path=some/model", "model.lora.rank=8"]], ids=str
)
def test_a_task_of_ones_own_has_one_set_of_defaults(model):
    """However it is given, so that a task that moves from a notebook to a file is trained as before."""
    made = [load([*task, *model]) for task in OWN] + [as_config({"model": {"path": "some/model"}}, "own")] * (
        len(model) == 1
    )
    plain = [{key: value for key, value in config.model_dump().items() if key != "task"} for config in made]
    assert all(one == plain[0] for one in plain)
    rates = {0: 1e-4, 1: 1e-6, 2: 1e-5}  # the package's tiny model, all weights, adapters
    assert made[0].learning_rate == rates[len(model)]
    assert (made[0].steps, made[0].sampling.max_tokens, made[0].evaluation.sampling.max_tokens) == (100, 1024, 1024)


def test_what_is_given_wins_over_the_defaults_of_ones_own_task():
    assert load(["task=own", "learning_rate=3e-3", "model.lora.rank=4"]).learning_rate == 3e-3
    assert as_config({"learning_rate": 3e-3}, "own").learning_rate == 3e-3
    assert as_config(["learning_rate=3e-3"], "own").task.kind == "own"
    assert as_config(["task=kk_tiny"], "own").task.name == "kk_tiny"
    assert (load(["task=own", "epochs=3"]).steps, load(["task=own", "epochs=3", "steps=5"]).steps) == (None, 5)


@pytest.mark.parametrize("key", ["warmup_steps", "save_every", "evaluation.every"])
@pytest.mark.parametrize(
    ("value", "said"), [("1.5", "a share of all steps"), ("0.0", "a share"), ("-1", "at least 0"), ("true", "")]
)
def test_steps_are_whole_or_a_share(key, value, said):
    with pytest.raises(InputError, match=f"{key}={value}.*{said}"):
        load([f"{key}={value}"])


def test_an_empty_mapping_clears_and_what_is_given_beside_it_stays():
    """It was merged, so the sets of the run stayed."""
    files = ["task=files", "task.train=a.jsonl", "task.evaluations.one=b.jsonl", "task.evaluations.two=c.jsonl"]
    config = load(files)
    assert changed(config, ["task.evaluations={}"]).task.evaluations == {}
    again = changed(config, ["task.evaluations={}", "task.evaluations.three=d.jsonl"])
    assert again.task.evaluations == {"three": "d.jsonl"}
    assert load([*files, "task.evaluations={}"]).task.evaluations == {}
    assert rlcsd.load_config({"task": "files", "task.train": "a.jsonl", "task.evaluations": {}}).task.evaluations == {}
    scheduled = ["lr_scheduler_type=cosine_with_min_lr", "lr_scheduler_kwargs={min_lr_rate: 0.1}"]
    assert changed(load(scheduled), ["lr_scheduler_kwargs={}"]).lr_scheduler_kwargs == {}


@pytest.mark.parametrize(
    "value",
    ["@lab", "%x", "no", "1e5x", "a: b", "It's", "back\\slash\\", "\\'", " spaced ", "{x}", "2024-02-30"],
)
def test_a_text_is_the_same_however_it_is_given(value):
    """A saved config was changed by the grammar of YAML, and a new one by Hydra's."""
    (written,) = as_overrides({"project": value})
    assert changed(load(), [written]).project == load([written]).project == value
    template = "{{ messages }}\n" + value.replace("{", "").replace("%", "")
    assert changed(load(), as_overrides({"model.chat_template": template})).model.chat_template == template
    scheduled = ["lr_scheduler_type=cosine_with_min_lr", "lr_scheduler_kwargs={min_lr_rate:0.1}"]
    assert changed(load(), scheduled).lr_scheduler_kwargs == load(scheduled).lr_scheduler_kwargs == {"min_lr_rate": 0.1}


def test_a_date_that_there_is_not_is_one_sentence(tmp_path):
    (tmp_path / "config.yaml").write_text("run_name: 2024-02-30\n")
    with pytest.raises(InputError, match="not YAML"):
        from_yaml(tmp_path / "config.yaml")


def test_a_config_comes_in_any_form_that_train_takes(tmp_path):
    config = rlcsd.load_config({"method": "grpo", "task": {"train_per_size": 8}, "sampling.max_tokens": 64})
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    same = [config, str(tmp_path / "config.yaml"), tmp_path / "config.yaml"]
    same.append(["method=grpo", "task.train_per_size=8", "sampling.max_tokens=64"])
    assert all(rlcsd.load_config(one) == config for one in same)
    assert rlcsd.load_config() == load()
    with pytest.raises(InputError, match=r"overrides come in a list, \['steps=3'\]"):
        rlcsd.load_config("steps=3")
    with pytest.raises(InputError, match="there is no such file"):
        rlcsd.load_config("no.yaml")


@pytest.mark.parametrize(
    ("nested", "overrides"),
    [
        ({"variant": "as_run", "method": {"name": "opsd"}}, ["variant=as_run", "method=opsd"]),
        (
            {"variant": "sdft", "method": {"name": "sdpo", "alpha": 0.3}},
            ["variant=sdft", "method=sdpo", "method.alpha=0.3"],
        ),
        ({"method": {"name": "dapo"}}, ["method=dapo"]),
        ({"method.name": "sdar", "task": {"name": "roll_call"}}, ["method=sdar", "task=roll_call"]),
        ({"engine": {"name": "verl"}}, ["engine=verl"]),
    ],
)
def test_a_name_within_a_mapping_chooses_as_the_group_does(nested, overrides):
    assert rlcsd.load_config(nested) == load(overrides)
    by_name = [re.sub(r"^(method|task|engine)=", r"\1.name=", override) for override in overrides]
    assert load(by_name) == load(overrides)


def test_the_whole_of_a_config_as_a_mapping_is_that_config():
    config = load(["method=dapo", "task=roll_call", "refill_batches=2", "kl_coefficient=0.01"])
    assert rlcsd.load_config(config.model_dump()) == config


# ------------------------------------------------------------------ objectives


def outside(config) -> tuple[object, ...]:
    """What an objective sets beside the method."""
    return config.kl_coefficient, config.refill_batches, config.overlong.buffer, config.overlong.penalty


def test_a_baseline_by_name_is_grpo_with_the_objective_of_its_name():
    task = "task=math_deepmath"
    for name in BASELINES:
        named, composed = load([f"method={name}", task]), load(["method=grpo", f"objective={name}", task])
        assert named.method.name == name == named.method.objective == composed.method.objective
        assert named.method.model_dump(exclude={"name"}) == composed.method.model_dump(exclude={"name"})
        of_paper = {"dapo": (0.0, 9, 0.2, 1.0), "rloo": (0.001, 0, 0, 1.0)}.get(name, (0.0, 0, 0, 1.0))
        assert outside(named) == outside(composed) == of_paper


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], ["method.objective=gspo"]),
        ([], ["method.reduction=sequence"]),
        (["method.objective=gspo"], ["method.objective=dapo"]),
        (["method.objective=gspo", "method.reduction=token", "method.epsilon=0.01"], ["method.tau=0.1"]),
        (["method.hint_source=gt_cot"], ["method.objective=cispo", "method.epsilon=0.3"]),
    ],
)
def test_what_follows_from_a_changed_part_of_a_saved_config_follows_anew(before, after):
    for method in ("rlcsd", "rlsd"):
        chosen = [f"method={method}", *before]
        later = [one for one in after if method == "rlcsd" or "tau" not in one]
        saved = validated(yaml.safe_load(to_yaml(load(chosen))))
        given = {key.partition("=")[0] for key in later}
        earlier = [one for one in chosen if one.partition("=")[0] not in given]
        assert changed(saved, later).method == load([*earlier, *later]).method


def test_an_objective_that_is_asked_for_has_precedence_over_a_variants():
    plain = load(["task=logic_kk", "method=grpo", "variant=authors"])
    config = load(["task=logic_kk", "method=grpo", "variant=authors", "objective=dapo"])
    assert (plain.kl_coefficient, plain.method.reduction) == (0.04, "sequence")
    assert (*outside(config), config.method.reduction) == (0.0, 9, 0.2, 1.0, "token")
    assert config.prompts_per_update == plain.prompts_per_update
    assert load(["method=rlsd", "variant=authors", "method.objective=dapo"]).method.reduction == "token"


def test_an_objective_is_one_word_for_every_method_with_a_policy_gradient():
    teacher = {"opd": ["method.teacher_model=tiny"]}
    for method, name in (("rlcsd", "gspo"), ("rlcsd_extended", "dr_grpo"), ("srpo", "dapo"), ("opd", "cispo")):
        chosen = [f"method={method}", *teacher.get(method, [])]
        config, plain = load([*chosen, f"objective={name}"]), load(chosen).method.model_dump()
        changed = {key: value for key, value in config.method.model_dump().items() if value != plain[key]}
        parts = {**OBJECTIVES[name], "objective": name, **({"path_norm": "rollout"} if name == "gspo" else {})}
        assert changed == {key: value for key, value in parts.items() if value != plain[key]}
        assert outside(config) == outside(load([f"method={name}"]))
        assert validated(yaml.safe_load(to_yaml(config))) == config


def test_an_override_wins_over_the_objective():
    config = load(
        ["method=rlcsd", "objective=dapo", "method.epsilon_high=0.3", "refill_batches=0", "overlong.buffer=9"]
    )
    assert (config.method.epsilon_high, config.refill_batches, config.overlong.buffer) == (0.3, 0, 9)
    assert as_config({"method": "rlsd", "objective": "gspo"}).method.ratio == "sequence"


def test_the_constant_of_the_mean_is_the_longest_response_unless_given():
    assert load(["method=dr_grpo"]).method.constant_length is None
    built = [
        build_method(load(["method=dr_grpo", "sampling.max_tokens=77", *more])).config.constant_length
        for more in ([], ["method.constant_length=5"])
    ]
    assert built == [77, 5]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["method=sdpo", "objective=dapo"], "objective=dapo: not for method=sdpo; its loss is no policy gradient"),
        (["method=dapo", "objective=gspo"], "objective=gspo: method=dapo is grpo with objective=dapo; use method=grpo"),
        (["objective=dapu"], "objective=dapu: unknown objective; did you mean 'dapo'?"),
        (["method=dapo", "method.objective=gspo"], "method.objective='gspo': must be 'dapo'"),
        (
            ["overlong.buffer=300", "sampling.max_tokens=200"],
            "overlong.buffer=300: must be at most sampling.max_tokens",
        ),
        (
            ["overlong.buffer=1.5"],
            "must be a whole number of tokens, or a share of sampling.max_tokens between 0 and 1",
        ),
        (["method.epsilon=1.5"], "method.epsilon=1.5: must be at most 1"),
    ],
)
def test_what_does_not_compose_is_one_sentence(overrides, words):
    with pytest.raises(InputError, match=re.escape(words)):
        load(overrides)
