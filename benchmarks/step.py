"""A training step against a straightforward version of it, and where its time goes.

    python benchmarks/step.py [--rounds 5] [--json FILE] [--smoke] [key=value …]
    python benchmarks/step.py --alone …               # without the straightforward version

Any override of `rlcsd train` may follow, `method=grpo` or `model.path=…` for example. Figures are medians over rounds;
a first step warms up and does not count.

Straightforward: transformers' `generate`, a pass for the old log-probs, every (hinted prompt, response) pair scored in
full as one padded row, whole logits kept, and the prompt computed again for each rollout. Both are the same `Trainer`
with another engine, on the same weights, prompts and random draws of hints, and cut their batches by the same token
budgets. The two take turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import torch
from common import SMOKE_STEP, interleaved, median, options, parsed, write
from torch import Tensor

from rlcsd.config.load import load
from rlcsd.engine.head import Head, HeadOutput
from rlcsd.engine.local import LocalEngine, update
from rlcsd.engine.local.caches import micro_batches
from rlcsd.engine.local.model import Network
from rlcsd.prepare import prepare
from rlcsd.records import Pair, Sample, Sampling, Scores
from rlcsd.run.folder import environment
from rlcsd.trainer import Trainer


class WholeHead(Head):
    """All logits at once, kept for the backward pass."""

    def forward(self, hidden: Tensor, ids: Tensor, topk_ids: Tensor | None = None, entropy: bool = True) -> HeadOutput:
        log_probs = self.logits(hidden).log_softmax(-1)
        entropies = -(log_probs.exp() * log_probs).sum(-1)
        return HeadOutput(log_probs.gather(-1, ids[:, None])[:, 0], entropies, topk_ids, None)


class Straightforward(LocalEngine):
    """The local engine without its economies."""

    @torch.no_grad()
    def sample(self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, seed: int) -> list[list[Sample]]:
        torch.manual_seed(seed)
        pad, stop, width = self.tokenizer.pad_token_id, self.stop_ids(), max(map(len, prompts))
        padded = [([pad] * (width - len(p)) + list(p), [0] * (width - len(p)) + [1] * len(p)) for p in prompts]
        ids = torch.tensor([row for row, _ in padded for _ in range(n)], device=self.device)
        mask = torch.tensor([row for _, row in padded for _ in range(n)], device=self.device)
        filters = {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}
        limit = {"max_new_tokens": sampling.max_tokens, "eos_token_id": stop, "pad_token_id": pad}
        with self.policy.precision():
            out = self.policy.model.generate(ids, attention_mask=mask, do_sample=True, **filters, **limit)
        responses, finished = [], []
        for row in out[:, width:].tolist():
            end = next((index for index, token in enumerate(row) if token in stop), None)
            responses.append(tuple(row if end is None else row[: end + 1]))
            finished.append(end is not None)
        pairs = [Pair(tuple(prompts[index // n]), response) for index, response in enumerate(responses)]
        scored = self.score(pairs, "policy")
        columns = (
            column.split([len(response) for response in responses]) for column in (scored.log_prob, scored.entropy)
        )
        samples = [
            Sample(response, old, old, ended, entropy)
            for response, ended, old, entropy in zip(responses, finished, *columns, strict=True)
        ]
        return [samples[start : start + n] for start in range(0, len(samples), n)]

    @torch.no_grad()
    def score(self, pairs: Sequence[Pair], who: str = "teacher", **options: Any) -> Scores:
        network: Network = self.policy if who == "policy" or self.teacher is None else self.teacher.network
        network.head = WholeHead(network.core.get_output_embeddings())
        lengths = [len(p.context) + len(p.response) for p in pairs]
        found: dict[int, tuple[Tensor, Tensor]] = {}
        for rows in micro_batches(lengths, range(len(pairs)), self.config.engine.score_tokens):
            chosen = [pairs[row] for row in rows]
            ids = torch.tensor([token for pair in chosen for token in pair.response], device=self.device)
            with network.precision():
                output = network.head(update.response_hidden(network, chosen, self.tokenizer.pad_token_id), ids)
            cuts = [len(pair.response) for pair in chosen]
            found.update(
                zip(rows, zip(output.log_prob.split(cuts), output.entropy.split(cuts), strict=True), strict=True)
            )
        log_probs, entropies = zip(*(found[row] for row in range(len(pairs))), strict=True)
        return Scores(torch.cat(log_probs), torch.cat(entropies))

    def update(self, *arguments: Any, **options: Any) -> Any:
        with patch.object(update, "prompts_to_share", lambda *arguments: None):
            return super().update(*arguments, **options)


PHASES = ("sample", "score", "update")
ENGINES: dict[str, type[LocalEngine]] = {"straightforward": Straightforward, "ours": LocalEngine}


def main() -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--alone", action="store_true", help="without the straightforward version")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parsed(parser)
    config = load(["learning_rate=1e-9", *arguments.overrides, *(SMOKE_STEP if arguments.smoke else ())])
    prepared = prepare(config)
    names = ["ours"] if arguments.alone else ["straightforward", "ours"]
    trainers = {name: Trainer(prepared, ENGINES[name](config, prepared.method)) for name in names}
    steps = {name: iter(range(1, 1000)) for name in names}
    phases: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    tokens: list[int] = []

    def step(name: str) -> None:
        result = trainers[name].step(next(steps[name]))
        phases[name].append(
            {phase: result.metrics.get(f"time/{phase}", 0.0) for phase in ("sample", "score", "update")}
        )
        tokens.append(sum(len(rollout.sample.ids) for group in result.groups for rollout in group.rollouts))

    seconds = interleaved({name: lambda n=name: step(n) for name in names}, arguments.rounds)
    facts = environment(trainers["ours"].engine)
    print(f"{config.method.name} on {facts['device_name']}: {median(tokens):.0f} tokens a step, seconds and shares")
    print("| step | seconds | sample | score | update |\n|---|---|---|---|---|")
    for name in names:
        whole = median(seconds[name])
        parts = [median([each[phase] for each in phases[name][1:]]) for phase in PHASES]
        print(f"| {name} | {whole:.2f} | {' | '.join(f'{part:.2f} ({part / whole:.0%})' for part in parts)} |")
    if not arguments.alone:
        print(f"ours / straightforward {median(seconds['ours']) / median(seconds['straightforward']):.2f}")
    write(arguments.json, {"seconds": seconds, "phases": phases, "environment": facts})


if __name__ == "__main__":
    main()
