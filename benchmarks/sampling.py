"""Sampling: the decode loop against transformers' `generate` on the same weights and prompts.

    python benchmarks/sampling.py [--rounds 5] [--json FILE] [--model PATH] [--smoke]

Groups of 8 on puzzle prompts, temperature 1 without filters; responses end where they end, so lengths are ragged.
`generate` gets each prompt 8 times in one batch, as a trainer would call it. Compared are tokens per second, counted up
to the end of each response; also with top-p 0.95 and top-k 20, without and with sampling masks.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from common import device, interleaved, median, options, parsed, write

from rlcsd.config.load import load
from rlcsd.config.schema import ModelConfig
from rlcsd.engine.local.model import load_network, load_tokenizer
from rlcsd.engine.local.sampler import sample
from rlcsd.prompts import question_text, render
from rlcsd.records import Sampling
from rlcsd.tasks.registry import build_task


def main() -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--model", default="tiny", help="as in model.path")
    parser.add_argument("--prompts", type=int, default=16)
    arguments = parsed(parser)
    if arguments.smoke:
        arguments.prompts = 2
    limit = 24 if arguments.smoke else 256
    config = ModelConfig(path=arguments.model)
    tokenizer, network = load_tokenizer(config), load_network(config, device())
    task = build_task(load([f"task.train_per_size={arguments.prompts}", "task.eval_per_size=1"]).task)
    prompts = [render(tokenizer, question_text(p.question, task.instruction)) for p in task.train[: arguments.prompts]]
    stop, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    model = network.model.eval()
    plain = Sampling(max_tokens=limit)
    cut = Sampling(1.0, 0.95, 20, limit)
    ways = {"ours": plain, "filters": cut, "masks": replace(cut, keep_mask=True)}
    counts: dict[str, list[int]] = {name: [] for name in ("generate", *ways)}
    seeds = iter(range(10_000))

    def generate() -> None:
        torch.manual_seed(next(seeds))
        width = max(map(len, prompts))
        ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts for _ in range(8)], device=device())
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts for _ in range(8)], device=device())
        with torch.inference_mode():
            out = model.generate(
                ids,
                attention_mask=mask,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=limit,
                eos_token_id=stop,
                pad_token_id=pad,
            )
        counts["generate"].append(
            sum((row.index(stop) + 1) if stop in row else len(row) for row in out[:, width:].tolist())
        )

    def ours(name: str) -> None:
        groups = sample(network, prompts, 8, ways[name], seed=next(seeds), stop_ids=[stop], pad_id=pad)
        counts[name].append(sum(len(s.ids) for group in groups for s in group))

    seconds = interleaved({"generate": generate, **{name: partial(ours, name) for name in ways}}, arguments.rounds)
    rates = {name: median([c / s for c, s in zip(counts[name][1:], seconds[name], strict=True)]) for name in counts}
    for name, value in rates.items():
        print(f"{name:<9}{value:9.0f} tokens/s")
    print(f"ratio {rates['ours'] / rates['generate']:.2f}")
    write(arguments.json, {"tokens_per_second": rates, "seconds": seconds, "tokens": counts})


if __name__ == "__main__":
    main()
