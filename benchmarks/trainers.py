"""One training step against TRL's trainers, on the same weights, prompts and sizes; the candidates take turns.

    pip install 'rlcsd[trl]'
    python benchmarks/trainers.py [--rounds 5] [--json FILE] [--model PATH] [--peer grpo|sdpo] [--smoke]

A step is 16 puzzles × 8 rollouts of at most 256 tokens, temperature 1, and four optimizer steps, in float32 (bf16 on
a GPU). TRL samples with transformers' `generate`, as it does without vLLM. sdpo: both distil the student's top 100 and
a tail from an EMA teacher that is shown a successful sibling. Learning rates are next to nothing, so all steps see the
same policy.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from common import SMOKE_STEP, device, median, options, parsed, synchronise, write
from datasets import Dataset
from transformers import AutoModelForCausalLM, TrainerCallback
from transformers.utils import logging as transformers_logging
from trl import GRPOConfig, GRPOTrainer

from rlcsd.config.load import load
from rlcsd.config.schema import Config
from rlcsd.engine.local import LocalEngine
from rlcsd.engine.local.model import load_tokenizer, resolve_path
from rlcsd.prepare import prepare
from rlcsd.prompts import question_text
from rlcsd.tasks.registry import build_task
from rlcsd.tasks.task import Task
from rlcsd.trainer import Trainer

OURS = {"grpo": [], "sdpo": ["method.hint_source=own_rollout"]}
UPDATES = 4  # optimizer steps of a training step


class TakeTurns(TrainerCallback):  # type: ignore[misc]
    """After each of TRL's training steps (`UPDATES` optimizer steps), one of ours; the first of each warms up."""

    def __init__(self, ours: Callable[[], Any]) -> None:
        self.ours, self.seconds, self.mark = ours, {"trl": [], "ours": []}, 0.0

    def _now(self) -> float:
        synchronise()
        return time.perf_counter()

    def on_train_begin(self, *arguments: Any, **options: Any) -> None:
        self.mark = self._now()

    def on_step_end(self, arguments: Any, state: Any, control: Any, **options: Any) -> None:
        if state.global_step % UPDATES == 0:
            self.seconds["trl"].append(self._now() - self.mark)
            begun = self._now()
            self.ours()
            self.mark = self._now()
            self.seconds["ours"].append(self.mark - begun)


def our_step(config: Config, task: Task) -> Callable[[], Any]:
    prepared = prepare(config, task)
    trainer = Trainer(prepared, LocalEngine(config, prepared.method))
    numbers = iter(range(1, 1000))
    return lambda: trainer.step(next(numbers))


def trl_trainer(peer: str, config: Config, task: Task, steps: int, folder: str, turns: TakeTurns) -> Any:
    cuda = device().type == "cuda"
    settings: dict[str, Any] = {
        "output_dir": folder,
        "max_steps": steps * UPDATES,
        "per_device_train_batch_size": config.prompts_per_update * config.group_size,
        "steps_per_generation": UPDATES,
        "num_generations": config.group_size,
        "max_completion_length": config.sampling.max_tokens,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "beta": 0.0,
        "learning_rate": 1e-9,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "use_cpu": not cuda,
        "bf16": cuda,
        "gradient_checkpointing": False,
        "report_to": [],
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": config.seed,
    }
    prompts = [[{"role": "user", "content": question_text(p.question, task.instruction)}] for p in task.train]
    data = Dataset.from_dict({"prompt": prompts, "answer": [p.answer for p in task.train]})

    def reward(completions: list[Any], answer: list[str], **columns: Any) -> list[float]:
        return [float(task.verifier(c[0]["content"], a)) for c, a in zip(completions, answer, strict=True)]

    path = resolve_path(config.model.path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    common = {"train_dataset": data, "processing_class": load_tokenizer(config.model), "callbacks": [turns]}
    if peer == "grpo":
        return GRPOTrainer(model=model, reward_funcs=reward, args=GRPOConfig(**settings), **common)
    from trl.experimental.sdpo import SDPOConfig, SDPOTrainer

    distilled = {
        "distillation_mode": "topk_logits",
        "distillation_topk": 100,
        "distillation_add_tail": True,
        "distillation_alpha": 0.5,
    }
    return SDPOTrainer(
        model=model, reward_funcs=reward, args=SDPOConfig(**settings, **distilled, teacher_model_kind="ema"), **common
    )


def main() -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--model", default="tiny", help="as in model.path")
    parser.add_argument("--peer", choices=tuple(OURS), action="append")
    arguments = parsed(parser)
    smoke = [*SMOKE_STEP, "prompts_per_step=4", "task.train_per_size=4", "group_size=2", "sampling.max_tokens=16"]
    transformers_logging.set_verbosity_error()
    records = {}
    print("| method | TRL s/step | ours s/step | ours / TRL |\n|---|---|---|---|")
    for peer in arguments.peer or list(OURS):
        precision = "bfloat16" if device().type == "cuda" else "float32"
        common = [
            f"method={peer}",
            f"model.path={arguments.model}",
            f"model.dtype={precision}",
            "learning_rate=1e-9",
            "kl_coefficient=0",
        ]
        config = load([*common, *OURS[peer], *(smoke if arguments.smoke else [])])
        task = build_task(config.task)
        turns = TakeTurns(our_step(config, task))
        with tempfile.TemporaryDirectory() as folder:
            trl_trainer(peer, config, task, arguments.rounds + 1, folder, turns).train()
        medians = {name: median(values[1:]) for name, values in turns.seconds.items()}
        print(
            f"| {peer} | {medians['trl']:.2f} | {medians['ours']:.2f} | {medians['ours'] / medians['trl']:.2f} |",
            flush=True,
        )
        records[peer] = {"medians": medians, "seconds": turns.seconds}
    write(arguments.json, records)


if __name__ == "__main__":
    main()
