"""The 52 published experiments, every hyper-parameter written out once more."""

from __future__ import annotations

import pytest

from rlcsd.config.load import load

MODELS = {
    "qwen3_1p7b": ("Qwen/Qwen3-1.7B", "5_7"),
    "qwen3_4b": ("Qwen/Qwen3-4B", "6_8"),
    "qwen3_8b": ("Qwen/Qwen3-8B", "7_10"),
    "olmo3_7b_think": ("allenai/Olmo-3-7B-Think", "7_10"),
}
METHODS = ("grpo", "opsd", "sdpo", "srpo", "rlsd", "rlcsd")
ALL = [(model, task, method) for model in MODELS for task in ("math_deepmath", "logic_kk") for method in METHODS]
ALL += [("qwen3_4b", task, method) for task in ("math_deepmath", "logic_kk") for method in ("opsd_ectr", "rlsd_ectr")]

COMMON = {
    "learning_rate": 1e-6, "weight_decay": 0.01, "warmup_steps": 50, "group_size": 8, "prompts_per_step": 64, "prompts_per_update": 16,
    "max_prompt_tokens": 2048, "sampling.max_tokens": 16384, "sampling.temperature": 1.0, "sampling.top_p": 0.95, "sampling.top_k": 20,
    "model.thinking_student": True, "model.thinking_teacher": True, "model.thinking_eval": True, "rollout_correction": "token_truncate", "sampling_mask": False,
    "importance_weight_cap": 2.0, "evaluation.every": 50, "evaluation.before": True, "save_every": 50, "epochs": 30, "steps": None,
    "evaluation.sampling.temperature": 0.6, "evaluation.sampling.top_p": 0.95, "evaluation.sampling.top_k": 20,
    "evaluation.sampling.max_tokens": 38912, "model.lora": None, "model.dtype": "bfloat16", "entropy_coefficient": 0.0,
    "max_teacher_tokens": None,
}  # fmt: skip
BY_TASK = {
    "math_deepmath": {"task.evaluation": "amc23+aime24+aime25", "task.verifier": "math", "evaluation.samples": 12},
    "logic_kk": {
        "task.train_sizes": [4, 5, 6, 7, 8],
        "task.unseen_sizes": [9, 10, 11],
        "task.eval_per_size": 100,
        "task.eval_split": "test",
        "evaluation.samples": 1,
    },
}
BY_METHOD = {
    "grpo": {"method.epsilon": 0.2, "method.dual_clip": 3.0, "method.reduction": "token"},
    "opsd": {"method.teacher": "fixed", "method.clip": 0.05, "method.top_k": 100, "method.add_tail": True, "method.hint_source": "gt_cot"},
    "sdpo": {"method.teacher": "ema", "method.ema_rate": 0.05, "method.alpha": 0.5, "method.ratio_cap": 2.0, "method.top_k": 100,
             "method.hint_source": "gt_cot"},
    "srpo": {"method.teacher": "ema", "method.ema_rate": 0.05, "method.entropy_beta": 1.0, "method.route": "advantage",
             "method.hint_source": "gt_cot"},
    "rlsd": {"method.teacher": "snapshot", "method.snapshot_every": 10, "method.lam": 0.5, "method.lam_decay_steps": 50,
             "method.epsilon_weight": 0.2, "method.hint_source": "gt_cot", "method.reduction": "token"},
    "rlcsd": {"method.teacher": "snapshot", "method.snapshot_every": 10, "method.tau": 0.02, "method.beta": 1.0, "method.lam": 0.5,
              "method.residual_low": -2.0, "method.residual_high": 2.0, "method.delta": 0.02, "method.eta": 1.0, "method.k_max": 4,
              "method.hint_source": "self_rollout", "method.exclude_self": True, "method.anchor": True, "method.two_path": True,
              "method.path_norm": "minibatch", "method.unusable": "drop", "method.template": "neutral"},
    "opsd_ectr": {"method.teacher": "fixed", "method.alpha": 0.5, "method.log_wrong_floor": -5.0, "method.clip": 0.05, "method.k_max": 1,
                  "method.hint_source": "self_rollout"},
    "rlsd_ectr": {"method.teacher": "snapshot", "method.k_max": 1, "method.lam": 0.5, "method.lam_decay_steps": 50,
                  "method.hint_source": "self_rollout"},
}  # fmt: skip


def test_there_are_52():
    assert len(set(ALL)) == 52


@pytest.mark.parametrize(("model", "task", "method"), ALL)
def test_an_experiment_composes_to_the_published_values(model, task, method):
    config = load([f"model={model}", f"task={task}", f"method={method}"]).model_dump()
    path, band = MODELS[model]
    expected = {
        **COMMON,
        **BY_TASK[task],
        **BY_METHOD[method],
        "model.path": path,
        "task.name": task,
        "method.name": method,
        "max_grad_norm": 0.1 if method in ("opsd", "opsd_ectr") else 1.0,
        "kl_coefficient": 0.001 if method in ("grpo", "opsd_ectr", "rlsd_ectr") else 0.0,
    }
    if task == "math_deepmath":
        expected["task.train"] = f"deepmath_filtered_level{band}"
    found = {}
    for key in expected:
        value = config
        for part in key.split("."):
            value = value[part]
        found[key] = value
    assert found == expected
