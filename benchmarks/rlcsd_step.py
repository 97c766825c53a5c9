"""An rlcsd step against the straightforward version of it, on the same weights, prompts and random draws of hints.

    python benchmarks/rlcsd_step.py [--rounds 5] [--json FILE] [key=value …]

Straightforward: transformers' `generate`, a pass for the old log-probs, every (hinted prompt, response) pair scored in
full as one padded row, whole logits kept, the prompt computed again for each rollout. Both are the same `Trainer` with
another engine, and cut their batches by the same token budgets. Any override of `rlcsd train` may follow.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from common import interleaved, median, write
from torch import Tensor

from rlcsd.config.load import load
from rlcsd.engine.head import Head, HeadOutput
from rlcsd.engine.local import LocalEngine
from rlcsd.engine.local.caches import micro_batches
from rlcsd.engine.local.model import Network
from rlcsd.engine.local.update import response_hidden
from rlcsd.methods.base import Method
from rlcsd.metrics import Metrics
from rlcsd.prepare import prepare
from rlcsd.records import Pair, Sample, Sampling, Scores, TokenBatch
from rlcsd.tasks.registry import build_task
from rlcsd.trainer import Trainer


class WholeHead(Head):
    """All logits at once, kept for the backward pass."""

    def forward(self, hidden: Tensor, ids: Tensor, support: Tensor | None = None, entropy: bool = True) -> HeadOutput:
        log_probs = self.logits(hidden).log_softmax(-1)
        return HeadOutput(
            log_probs.gather(-1, ids[:, None])[:, 0], -(log_probs.exp() * log_probs).sum(-1), support, None
        )


class Straightforward(LocalEngine):
    """The local engine without its economies."""

    def _plain(self, network: Network) -> Network:
        network.head = WholeHead(network.core.get_output_embeddings())
        return network

    @torch.no_grad()
    def sample(self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, seed: int) -> list[list[Sample]]:
        torch.manual_seed(seed)
        pad, stop, width = self.tokenizer.pad_token_id, self.stop_ids(), max(map(len, prompts))
        ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts for _ in range(n)], device=self.device)
        mask = torch.tensor(
            [[0] * (width - len(p)) + [1] * len(p) for p in prompts for _ in range(n)], device=self.device
        )
        filters = {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}
        limit = {"max_new_tokens": sampling.max_tokens, "eos_token_id": stop, "pad_token_id": pad}
        with self.policy.precision():
            out = self.policy.model.generate(ids, attention_mask=mask, do_sample=True, **filters, **limit)
        rows = []
        for row in out[:, width:].tolist():
            ends = [place for place, token in enumerate(row) if token in stop]
            rows.append((tuple(row[: ends[0] + 1] if ends else row), bool(ends)))
        pairs = [Pair(tuple(prompts[place // n]), ids) for place, (ids, _) in enumerate(rows)]
        scored = self.score(pairs, "policy")
        lengths = [len(pair.response) for pair in pairs]
        log_probs, entropies = scored.log_prob.split(lengths), scored.entropy.split(lengths)
        samples = [
            Sample(ids, old, old, finished, entropy)
            for (ids, finished), old, entropy in zip(rows, log_probs, entropies, strict=True)
        ]
        return [samples[start : start + n] for start in range(0, len(samples), n)]

    def gradient(self, pairs: Sequence[Pair], batch: TokenBatch, method: Method) -> Metrics:
        with patch("rlcsd.engine.local.update.shared_prompts", lambda *arguments: None):
            return super().gradient(pairs, batch, method)

    @torch.no_grad()
    def score(self, pairs: Sequence[Pair], who: str = "teacher", **options: Any) -> Scores:
        network = self._plain(self.policy if who == "policy" or self.teacher is None else self.teacher.network)
        lengths = [len(p.context) + len(p.response) for p in pairs]
        found: list[tuple[Tensor, Tensor] | None] = [None] * len(pairs)
        for rows in micro_batches(lengths, range(len(pairs)), self.config.engine.score_tokens):
            chosen = [pairs[row] for row in rows]
            ids = torch.tensor([token for pair in chosen for token in pair.response], device=self.device)
            with network.precision():
                output = network.head(response_hidden(network, chosen, self.tokenizer.pad_token_id), ids)
            cuts = [len(pair.response) for pair in chosen]
            for row, one, other in zip(rows, output.log_prob.split(cuts), output.entropy.split(cuts), strict=True):
                found[row] = (one, other)
        whole = [each for each in found if each is not None]
        return Scores(torch.cat([one for one, _ in whole]), torch.cat([other for _, other in whole]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    config = load(["learning_rate=1e-9", *arguments.overrides])
    task = build_task(config.task)
    numbers = {"ours": iter(range(1, 1000)), "straightforward": iter(range(1, 1000))}
    trainers, phases = {}, {}
    for name, engine in (("straightforward", Straightforward), ("ours", LocalEngine)):
        prepared = prepare(config, task)
        trainers[name] = Trainer(prepared, engine(config, prepared.method))
        phases[name] = []

    def step(name: str) -> None:
        metrics = trainers[name].step(next(numbers[name])).metrics
        phases[name].append({phase: metrics.get(f"time/{phase}", 0.0) for phase in ("sample", "score", "update")})

    seconds = interleaved({name: lambda n=name: step(n) for name in trainers}, arguments.rounds)
    print("| step | seconds | sample | score | update |\n|---|---|---|---|---|")
    for name in trainers:
        parts = [median([each.get(phase, 0.0) for each in phases[name][1:]]) for phase in ("sample", "score", "update")]
        print(f"| {name} | {median(seconds[name]):.2f} | {' | '.join(f'{part:.2f}' for part in parts)} |")
    print(f"ours / straightforward {median(seconds['ours']) / median(seconds['straightforward']):.2f}")
    write(arguments.json, {"seconds": seconds, "phases": phases})


if __name__ == "__main__":
    main()
