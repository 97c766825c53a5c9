"""RLCSD in TRL's trainer: the tiny model on Knights & Knaves puzzles, a few minutes on a CPU.

    pip install -c constraints.txt '.[trl]'    # in a checkout
    python examples/trl_rlcsd.py
    accelerate launch --multi_gpu --num_processes 2 examples/trl_rlcsd.py    # two GPUs

Whatever TRL's `GRPOConfig` has, `RLCSDConfig` has too: vLLM, adapters (`peft_config`), callbacks, loggers.
"""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from transformers import AutoModelForCausalLM

from rlcsd.adapters.trl import RLCSDConfig, RLCSDTrainer
from rlcsd.config.load import load
from rlcsd.engine.local.model import TINY, load_tokenizer
from rlcsd.prompts import question_text
from rlcsd.tasks.registry import build_task


def main(**settings: Any) -> RLCSDTrainer:
    """Train for a few steps; `settings` replace arguments of the config."""
    config = load([])
    task = build_task(config.task)
    data = Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": question_text(problem.question, task.instruction)}],
                "answer": problem.answer,
                "solution": problem.solution,
            }
            for problem in task.train
        ]
    )

    def reward(completions: list[Any], answer: list[str], **columns: Any) -> list[float]:
        return [float(task.verifier(c[0]["content"], a)) for c, a in zip(completions, answer, strict=True)]

    arguments: dict[str, Any] = {
        "output_dir": "runs/trl",
        "method": "rlcsd",
        "method_options": {"k_max": 4, "snapshot_every": 10},
        "max_steps": 40,
        "per_device_train_batch_size": 32,
        "steps_per_generation": 4,
        "gradient_accumulation_steps": 1,
        "num_generations": 8,
        "max_completion_length": 256,
        "learning_rate": 3e-4,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 4,
        "logging_steps": 4,
        "save_strategy": "no",
        "report_to": [],
        "bf16": False,
        "gradient_checkpointing": False,
    }
    trainer = RLCSDTrainer(
        AutoModelForCausalLM.from_pretrained(TINY),
        reward,
        RLCSDConfig(**arguments | settings),
        train_dataset=data,
        processing_class=load_tokenizer(config.model),
    )
    trainer.train()
    return trainer


if __name__ == "__main__":
    main()
