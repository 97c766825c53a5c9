"""The cost model against measured points, and what it says of the published sizes.

    python benchmarks/costs.py check [--json FILE] [--smoke]   # tokens and seconds by phase, on this machine
    python benchmarks/costs.py ratio                  # a step of each method over grpo's, Qwen3-4B on 8 × H20
    python benchmarks/costs.py hours                  # 500 steps of rlcsd by model and GPU

check: groups of 8 rollouts, half of them correct, through the engine's own sampling, scoring and update of random
models. Tokens are counted at the layers' entrance. Seconds are CPU time, so that other programs do not count; they are
predicted with the share of the matrix-product rate that the first point reached.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from common import grpo_mini_batch, options, parsed, random_network, write
from memory import MODELS, qwen3
from scoring import pairs_of

from rlcsd.config.load import build_method, load
from rlcsd.engine.costs import DEVICES, Batch, Efficiency, Work, after, flops, scoring_work, step_seconds, update_work
from rlcsd.engine.local.memory import shape_of
from rlcsd.engine.local.model import Network
from rlcsd.engine.local.sampler import sample
from rlcsd.engine.local.scoring import score
from rlcsd.engine.local.update import accumulate
from rlcsd.records import Pair, Sampling

PAPER = {"grpo": 759, "rlsd": 813, "rlcsd": 892, "sdpo": 961, "srpo": 1012, "opsd": 1036}  # seconds, arXiv 2606.11709
POINTS = [  # hidden, layers, groups, K, response
    (256, 4, 4, 4, 96), (256, 4, 4, 1, 96), (256, 4, 2, 4, 256), (384, 6, 2, 4, 96), (512, 4, 2, 4, 96),
]  # fmt: skip
HALF = tuple(float(correct == 4) for correct in range(9))


@contextmanager
def counted(network: Network) -> Iterator[dict[str, int]]:
    """Count the tokens that enter the layers of a network: `tokens`, and `padded` with the padding."""
    found = {"tokens": 0, "padded": 0}

    def count(_: Any, __: Any, inputs: dict[str, Any]) -> None:
        ids, mask = inputs["input_ids"], inputs.get("attention_mask")
        decoding = ids.shape[1] == 1  # no padding there, and the mask is of slots, of which the last may be unused
        found["tokens"] += ids.numel() if mask is None or decoding else int(mask[:, -ids.shape[1] :].sum())
        found["padded"] += ids.numel()

    hook = network.backbone.register_forward_pre_hook(count, with_kwargs=True)
    yield found
    hook.remove()


def cpu_seconds(run: Callable[[], Any], rounds: int = 3) -> float:
    """The least CPU time of a few runs."""
    found = []
    for _ in range(rounds):
        begun = time.process_time()
        run()
        found.append(time.process_time() - begun)
    return min(found)


def phases_of(network: Network, groups: int, k: int, length: int) -> dict[str, tuple[Work, float, Callable[[], Any]]]:
    """By phase: the work that the model counts, its passes (a backward pass counts two), and the phase itself."""
    method, grpo = (build_method(load(keys)) for keys in (["method=rlcsd", f"method.k_max={k}"], ["method=grpo"]))
    pairs = pairs_of(groups, 8, k, length, length, 2048)
    responses = list(dict.fromkeys(pair.response for pair in pairs))
    mean = sum(map(len, responses)) / len(responses)
    questions = {pair.response: pair.context[:36] for pair in reversed(pairs)}
    rows = [Pair(questions[response], response) for response in responses]
    batch = Batch(groups, 8, 48, mean, mean, template=2, correct=HALF)
    mini_batch = grpo_mini_batch(rows)
    prompts, sampling = [row.context for row in rows[::8]], Sampling(max_tokens=length)
    return {
        "sample": (
            (after(0, 36) + after(36, length, head=True) * 8) * groups,
            1.0,
            lambda: sample(network, prompts, 8, sampling, seed=0, stop_ids=[], pad_id=0),
        ),
        "score": (scoring_work(batch, method), 1.0, lambda: score(network, pairs, pad_id=0, budget=4096)),
        "update": (
            update_work(replace(batch, prompt=36), grpo),
            3.0,
            lambda: accumulate(network, mini_batch, pad_id=0, budget=4096),
        ),
    }


def check(arguments: argparse.Namespace) -> None:
    size = 128 if arguments.smoke else 1024
    a, b = torch.randn(2, size, size)
    rate = 2 * size**3 / cpu_seconds(lambda: a @ b, 10)
    shares: dict[str, float] = {}
    records = []
    print("| phase | hidden | layers | K | response | tokens, model / counted | padding | seconds, model / measured |")
    print("|---" * 8 + "|")
    for hidden, layers, groups, k, length in [(64, 1, 1, 1, 8)] if arguments.smoke else POINTS:
        network = random_network(hidden, layers, 2048)
        shape = shape_of(network.core.config, network.core)
        for phase, (work, passes, run) in phases_of(network, groups, k, length).items():
            with counted(network) as count:
                run()
            seconds, needed = cpu_seconds(run, 1 if arguments.smoke else 3), passes * flops(shape, work) / rate
            share = shares.setdefault(phase, needed / seconds)
            tokens, padding = work.tokens / count["tokens"], count["padded"] / count["tokens"]
            print(
                f"| {phase} | {hidden} | {layers} | {k} | {length} | {tokens:.2f} | {padding:.2f} "
                f"| {needed / share / seconds:.2f} |",
                flush=True,
            )
            point = {"hidden": hidden, "layers": layers, "groups": groups, "k": k, "response": length, "phase": phase}
            records.append({**point, "tokens": tokens, "seconds": seconds, "predicted": needed / share})
    reached = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    print(f"share of the matrix-product rate at the first point: {reached}")
    write(arguments.json, {"points": records, "rate": rate})


def published(method: str, *overrides: str) -> Any:
    return load([f"method={method}", "model=qwen3_4b", "task=math_deepmath", "engine=verl", *overrides])


def ratio(smoke: bool) -> None:
    shape = shape_of(qwen3(*MODELS["4B (Qwen3)"]))
    extremes = (0.25, *[0.5 / 7] * 7, 0.25)  # half of the groups all right or all wrong
    cases = {
        "4k tokens": (4096, None, []),
        "8k tokens": (8192, None, []),
        "8k tokens, no reference KL": (8192, None, ["kl_coefficient=0"]),
        "8k tokens, no reference KL, half of the groups all right or all wrong": (8192, extremes, ["kl_coefficient=0"]),
        "12k tokens, no reference KL": (12288, None, ["kl_coefficient=0"]),
    }

    def line(name: str, seconds: dict[str, float]) -> None:
        ratios = " | ".join(f"{value / seconds['grpo']:.2f}" for value in seconds.values())
        print(f"| {name} | {seconds['grpo']:.0f} | {ratios} |")

    print(f"| mean response | grpo, s | {' | '.join(PAPER)} |\n" + "|---" * (len(PAPER) + 2) + "|")
    line("paper", {name: float(value) for name, value in PAPER.items()})
    for name, (length, correct, overrides) in list(cases.items())[: 1 if smoke else None]:
        batch = Batch(64, 8, 200, length, 16384, solution=1024, correct=correct)
        seconds = {}
        for method in PAPER:
            config = published(method, *overrides)
            seconds[method] = sum(step_seconds(shape, batch, build_method(config), config, DEVICES["H20"], 8).values())
        line(name, seconds)


def hours() -> None:
    print(f"| model, devices | {' | '.join(DEVICES)} |\n" + "|---" * (len(DEVICES) + 1) + "|")
    for name, sizes in list(MODELS.items())[1:]:
        shape, config = shape_of(qwen3(*sizes)), published("rlcsd")
        batch = Batch(64, 8, 200, 8192, 16384, solution=1024)
        cells = [500 * sum(step_seconds(shape, batch, build_method(config), config, device, 8).values()) / 3600
                 for device in DEVICES.values()]  # fmt: skip
        print(f"| {name}, 8 | {' | '.join(f'{cell:.0f}' for cell in cells)} |")
    print(f"assumed: {Efficiency()}")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("what", choices=("check", "ratio", "hours"))
    arguments = parsed(parser)
    {"check": lambda: check(arguments), "ratio": lambda: ratio(arguments.smoke), "hours": hours}[arguments.what]()


if __name__ == "__main__":
    main()
