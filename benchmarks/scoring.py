"""Teacher scoring: every (hinted prompt, response) pair in full against shared prefixes.

    python benchmarks/scoring.py [--rounds 5] [--json FILE] [--smoke]
    python benchmarks/scoring.py --profile         # where the time of the first case goes

Groups of G rollouts; each rollout is scored under one correct and K wrong siblings. "naive" scores each pair as one
padded row, with the same chunked head and the same token budget.
"""

from __future__ import annotations

import random

import torch
from common import interleaved, matmul_rate, median, options, parsed, random_network, write

from rlcsd.engine.local.caches import families, micro_batches
from rlcsd.engine.local.model import Network
from rlcsd.engine.local.scoring import score
from rlcsd.engine.local.update import response_hidden
from rlcsd.records import Pair

BUDGET = 4096


def pairs_of(groups: int, size: int, k: int, hint: int, response: int, vocab: int, seed: int = 0) -> list[Pair]:
    """Contexts are question + hint; lengths vary by ±25 %."""
    rng = random.Random(seed)

    def text(mean: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, vocab) for _ in range(rng.randint(3 * mean // 4, 5 * mean // 4)))

    pairs = []
    for _ in range(groups):
        question = text(48)
        responses, hints = [text(response) for _ in range(size)], [text(hint) for _ in range(size)]
        right, wrong = range(size // 2), range(size // 2, size)
        for own in range(size):
            correct = rng.choice([i for i in right if i != own])
            others = rng.sample([i for i in wrong if i != own], min(k, len([i for i in wrong if i != own])))
            pairs += [Pair((*question, *hints[i], 1, 2), responses[own]) for i in (correct, *others)]
    return pairs


@torch.no_grad()
def naive(network: Network, pairs: list[Pair]) -> torch.Tensor:
    lengths = [len(p.context) + len(p.response) for p in pairs]
    found: dict[int, torch.Tensor] = {}
    for rows in micro_batches(lengths, range(len(pairs)), BUDGET):
        chosen = [pairs[row] for row in rows]
        ids = torch.tensor([t for p in chosen for t in p.response], device=network.device)
        output = network.head(response_hidden(network, chosen, 0), ids)
        found.update(zip(rows, output.log_prob.split([len(p.response) for p in chosen]), strict=True))
    return torch.cat([found[row] for row in range(len(pairs))])


def useful_flops(network: Network, pairs: list[Pair]) -> float:
    """The arithmetic that must be done: each distinct prefix and response token once, the head for responses alone.

    Two FLOPs per weight and token, and in each layer four per attended key and dimension of the heads.
    """
    config = network.core.config
    embedding = network.core.get_output_embeddings().weight.numel()
    body = sum(p.numel() for p in network.core.base_model.parameters()) - embedding
    attention = 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim
    tokens, attended = 0, 0.0
    for family in families([pair.context for pair in pairs]):
        for number, context in enumerate(family.contexts):
            new = len(context) - (family.root if number else 0)
            tokens += new
            attended += new * (len(context) - new / 2)
    responses = sum(len(p.response) for p in pairs)
    attended += sum(len(p.response) * (len(p.context) + len(p.response) / 2) for p in pairs)
    return 2.0 * body * (tokens + responses) + 2.0 * embedding * responses + attention * attended


CASES = [  # hidden, G, K, hint, response: the target's case at two sizes, then each axis
    (256, 8, 4, 96, 96), (512, 8, 4, 96, 96),
    (256, 4, 4, 96, 96), (256, 16, 4, 96, 96),
    (256, 8, 1, 96, 96), (256, 16, 8, 96, 96),
    (256, 8, 4, 48, 96), (256, 8, 4, 192, 96),
]  # fmt: skip


def print_profile(case: tuple[int, int, int, int, int]) -> None:
    hidden, size, k, hint, response = case
    network, pairs = random_network(hidden=hidden, layers=4, vocab=2048), pairs_of(4, size, k, hint, response, 2048)
    score(network, pairs, pad_id=0, budget=BUDGET)
    with torch.profiler.profile() as profiler:
        score(network, pairs, pad_id=0, budget=BUDGET)
    by = "self_cuda_time_total" if network.device.type == "cuda" else "self_cpu_time_total"
    print(profiler.key_averages().table(sort_by=by, row_limit=16, max_name_column_width=48))


def main() -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--profile", action="store_true", help="where the time of the first case goes")
    arguments = parsed(parser)
    cases = [(64, 4, 2, 8, 8)] if arguments.smoke else CASES
    if arguments.profile:
        return print_profile(cases[0])
    print(
        "| hidden | G | K | hint : response | naive s | ours s | ratio | tokens ratio | share of the "
        "matrix-product rate |\n" + "|---" * 9 + "|"
    )
    records = []
    for hidden, size, k, hint, response in cases:
        rate = matmul_rate(128 if arguments.smoke else 1024)  # beside each case: machines change their pace
        network = random_network(hidden=hidden, layers=4, vocab=2048)
        pairs = pairs_of(2 if size == 16 else 4, size, k, hint, response, 2048)
        torch.testing.assert_close(
            naive(network, pairs), score(network, pairs, pad_id=0, budget=BUDGET).log_prob, rtol=1e-3, atol=1e-4
        )
        seconds = interleaved(
            {
                "naive": lambda n=network, p=pairs: naive(n, p),
                "ours": lambda n=network, p=pairs: score(n, p, pad_id=0, budget=BUDGET),
            },
            arguments.rounds,
        )
        slow, fast = median(seconds["naive"]), median(seconds["ours"])
        full = sum(len(p.context) + len(p.response) for p in pairs)
        once = sum(len(c) for c in {p.context for p in pairs}) + sum(len(p.response) for p in pairs)
        share = useful_flops(network, pairs) / fast / rate
        case = f"{hidden} | {size} | {k} | {hint}:{response}"
        print(f"| {case} | {slow:.2f} | {fast:.2f} | {slow / fast:.2f} | {full / once:.2f} | {share:.0%} |", flush=True)
        records.append({"case": case, "seconds": seconds, "share_of_rate": share, "matmul_rate": rate})
    write(arguments.json, {"cases": records})


if __name__ == "__main__":
    main()
