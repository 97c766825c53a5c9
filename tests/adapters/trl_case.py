"""Fixed rollouts of three groups through TRL's trainer: gradients, losses and rows of its mini-batches into a file.

Run by the tests in their own process, and once by `accelerate launch` in two.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, TrainerCallback

from rlcsd.adapters.trl import RLCSDConfig, RLCSDTrainer
from rlcsd.config.schema import ModelConfig
from rlcsd.engine.local.model import TINY, load_tokenizer

G = 4
QUESTIONS = ["A is a knight or B is one. Who?", "B says that A is a knave. Who is what?", "A says nothing at all."]
TEXTS = [  # by group: mixed, mixed with an answer missing, all correct and so without a wrong hint
    [r"B is, so \boxed{B}.", r"\boxed{A}", r"Wait, A. \boxed{A} I think.", r"So B lies. \boxed{B}"],
    [r"\boxed{B}", r"Hm, \boxed{A} then", "no answer is given here", r"A is a knave, so \boxed{B} it is"],
    [r"\boxed{B}", r"B. \boxed{B}", r"It is \boxed{B}", r"\boxed{B} again"],
]
FLAT = [text for texts in TEXTS for text in texts]


def reward(completions: list[Any], answer: list[str], **columns: Any) -> list[float]:
    texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
    return [float(rf"\boxed{{{a}}}" in text) for text, a in zip(texts, answer, strict=True)]


def completion(tokenizer: Any, index: int) -> list[int]:
    return [*tokenizer(FLAT[index], add_special_tokens=False).input_ids, tokenizer.eos_token_id]


class Keep(TrainerCallback):
    def __init__(self) -> None:
        self.found: dict[str, list[Any]] = defaultdict(list)
        self.trainer: Any = None

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        self.found["gradients"].append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        size = args.gradient_accumulation_steps
        number = state.global_step % (args.steps_per_generation // size)
        batches = self.trainer._buffered_inputs[number * size : (number + 1) * size]
        self.found["rows"].append(torch.cat([batch["row"] for batch in batches]).tolist())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **options: Any) -> None:
        if logs and "loss" in logs:
            self.found["losses"].append(logs["loss"])


def run(
    method: str,
    folder: str,
    *,
    rows: int,
    accumulation: int,
    updates: int = 1,
    chat: bool = True,
    resume: bool = False,
    unjudged: int | None = None,
    unfinished: int | None = None,
    environment: bool = False,
    scale: float = 1.0,
    **settings: Any,
) -> Any:
    """Train on the fixed rollouts, `rows` of them in a micro-batch of each process; returns what was kept, and the
    trainer. The reward function gives no reward to the rollout `unjudged`; the rollout `unfinished` has no end;
    `scale` is the reward of the correct; with `environment` the rollouts have a mask of an environment's tokens."""
    tokenizer = load_tokenizer(ModelConfig())
    keep = Keep()

    def rollouts(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        first = trainer.accelerator.process_index * len(prompts)
        ids = [
            tokenizer.apply_chat_template(p, add_generation_prompt=True)["input_ids"] if chat else [5] for p in prompts
        ]
        indices = [(first + i) % len(FLAT) for i in range(len(prompts))]
        completions = [completion(tokenizer, i)[: -1 if i == unfinished else None] for i in indices]
        masks = {"env_mask": [[1] * len(one) for one in completions]} if environment else {}
        return {"prompt_ids": ids, "completion_ids": completions, "logprobs": None, **masks}

    data = {
        "prompt": [[{"role": "user", "content": question}] for question in QUESTIONS] if chat else QUESTIONS,
        "answer": ["B"] * 3,
        "solution": ["So it is B."] * 3,
    }
    arguments: dict[str, Any] = {
        "output_dir": folder,
        "method": method,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": accumulation,
        "steps_per_generation": accumulation * updates,
        "num_generations": G,
        "max_steps": updates,
        "learning_rate": 0.0,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "shuffle_dataset": False,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    trainer = RLCSDTrainer(
        AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32),
        lambda completions, **columns: [
            None if unjudged is not None and FLAT[unjudged] in c[0]["content"] else scale * value
            for c, value in zip(completions, reward(completions, **columns), strict=True)
        ],
        RLCSDConfig(**arguments | settings),
        train_dataset=Dataset.from_dict(data),
        processing_class=tokenizer,
        rollout_func=rollouts,
        callbacks=[keep],
    )
    keep.trainer = trainer
    trainer.train(resume_from_checkpoint=f"{folder}/checkpoint-2" if resume else None)
    return keep.found, trainer


if __name__ == "__main__":
    name, out = sys.argv[1:]
    kept, made = run(name, f"{out}-run", rows=2, accumulation=3)
    if made.accelerator.is_main_process:
        torch.save({"processes": made.accelerator.num_processes, **kept}, out)
