"""The other column of the table, and the published values of each method."""

import pytest

from rlcsd.config.load import load
from rlcsd.errors import InputError


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["method=rlcsd"], {"method.path_norm": "rollout"}),
        (["method=rlcsd", "task=logic_kk"], {"method.path_norm": "rollout", "learning_rate": 5e-6}),
        (["method=opsd", "task=logic_kk"], {
            "model.lora.rank": 64, "model.lora.alpha": 128, "learning_rate": 5e-6, "prompts_per_step": 32, "sampling.temperature": 1.1,
            "sampling.max_tokens": 1024, "model.thinking_student": False, "model.thinking_teacher": True}),
        (["method=sdpo"], {"method.hint_source": "own_rollout", "method.strip_thinking": True, "method.advantage_std": False,
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


def test_spares_is_the_arm_of_the_study():
    method = load(["variant=spares", "method.spare=0.7"]).method
    assert (method["spare"], method["weight_cap"], method["unusable"]) == (0.7, 3, "plain")


def test_later_overrides_win_over_the_variant():
    assert load(["method=sdpo", "variant=authors", "learning_rate=3e-5"]).learning_rate == 3e-5
    assert load(["variant=published"]) == load()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["variant=mine"], "must be one of published, authors, spares"),
        (["variant=authors", "method=opsd_ectr"], "variant=authors: there is none for method=opsd_ectr"),
        (["variant=spares", "method=grpo"], "variant=spares: there is none for method=grpo; it exists for rlcsd"),
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
    assert (c.rollout_correction, c.correction_cap, c.save_every, c.model.lora) == ("token", 2.0, 50, None)
    assert (c.model.thinking_student, c.model.thinking_teacher) == (True, True)
    assert (c.kl_coefficient, c.grad_norm) == (kl, norm)
    assert c.task["train_sizes"] == [4, 5, 6, 7, 8]
    assert c.task["unseen_sizes"] == [9, 10, 11]
