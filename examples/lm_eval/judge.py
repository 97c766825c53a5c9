"""The questions and verdicts of `rlcsd eval` for EleutherAI's lm-evaluation-harness.

    rlcsd export RUN --out model              # a plain Hugging Face folder
    rlcsd data kk --out puzzles               # problems: rows with question and answer
    cp puzzles/test.jsonl problems.jsonl
    lm_eval --model hf --model_args pretrained=model --include_path examples/lm_eval --tasks rlcsd_boxed \\
        --apply_chat_template --log_samples --output_path out

`RLCSD_VERIFIER` names the verifier (knights_and_knaves, math, exact …); the harness's own tasks need none of this.
Tested with lm-eval 0.4.13.
"""

import os
from typing import Any

from rlcsd.prompts import question_text
from rlcsd.records import Problem
from rlcsd.verifiers import get, grade


def question(row: dict[str, Any]) -> str:
    """The student's message for a row, as in training."""
    return question_text(row["question"])


def verdict(row: dict[str, Any], responses: list[str]) -> dict[str, float]:
    """Whether the verifier calls the response correct."""
    problem = Problem(row["question"], row["answer"])
    verifier = get(os.environ.get("RLCSD_VERIFIER", "knights_and_knaves"))
    return {"correct": float(grade(verifier, responses[:1], [problem])[0].correct)}
