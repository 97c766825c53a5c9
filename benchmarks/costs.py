"""The cost model against measured points, and what it says of the published sizes.

    python benchmarks/costs.py check [--json FILE]    # tokens and seconds by phase, on this machine
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
from pathlib import Path
from typing import Any

import torch
from common import random_network, write
from memory import MODELS, qwen3
from scoring import pairs_of

from rlcsd.config.load import build_method, load
from rlcsd.engine.costs import DEVICES, Batch, Efficiency, after, flops, scoring_work, step_seconds, update_work
from rlcsd.engine.local.memory import shape_of
from rlcsd.engine.local.model import Network
from rlcsd.engine.local.sampler import sample
from rlcsd.engine.local.scoring import score
from rlcsd.engine.local.update import MiniBatch, accumulate
from rlcsd.records import Pair, Sampling, TokenBatch

PAPER = {"grpo": 759, "rlsd": 813, "rlcsd": 892, "sdpo": 961, "srpo": 1012, "opsd": 1036}  # seconds, arXiv 2606.11709
POINTS = [  # hidden, layers, groups, K, response
    (256, 4, 4, 4, 96), (256, 4, 4, 1, 96), (256, 4, 2, 4, 256), (384, 6, 2, 4, 96), (512, 4, 2, 4, 96),
]  # fmt: skip
HALF = tuple(float(correct == 4) for correct in range(9))


@contextmanager
def counted(network: Network) -> Iterator[dict[str, int]]:
    """Tokens that enter the layers of a network meanwhile: `tokens`, and with `padded` ones."""
    found = {"tokens": 0, "padded": 0}

    def count(_: Any, __: Any, inputs: dict[str, Any]) -> None:
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        found["tokens"] += int(mask[:, -ids.shape[1] :].sum())
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


def check(json: Path | None) -> None:
    a, b = torch.randn(2, 1024, 1024)
    rate = 2 * 1024**3 / cpu_seconds(lambda: a @ b, 10)
    shares: dict[str, float] = {}
    records = []
    print("| phase | hidden | layers | K | response | tokens, model / counted | padding | seconds, model / measured |")
    print("|---" * 8 + "|")
    for hidden, layers, groups, k, length in POINTS:
        network, shape = random_network(hidden, layers, 2048), None
        shape = shape_of(network.core.config, network.core)
        method = build_method(load(["method=rlcsd", f"method.k_max={k}"]))
        pairs = pairs_of(groups, 8, k, length, length, 2048)
        responses = list(dict.fromkeys(pair.response for pair in pairs))
        mean = sum(map(len, responses)) / len(responses)
        questions = {response: next(p.context[:36] for p in pairs if p.response == response) for response in responses}
        batch = Batch(groups, 8, 48, mean, mean, template=2, correct=HALF)
        rows = [Pair(questions[response], response) for response in responses]
        grpo = build_method(load(["method=grpo"]))
        rollout = torch.arange(len(rows)).repeat_interleave(torch.tensor([len(row.response) for row in rows]))
        ones = torch.ones(len(rollout))
        batch = grpo.prepare(TokenBatch(rollout, ones, ones, -7 * ones, ones, ones.bool()), 1)
        mini_batch = MiniBatch(rows, batch, grpo)
        prompts, drawn = [row.context for row in rows[::8]], Sampling(max_tokens=length)
        phases = {
            "sample": (
                (after(0, 36) + after(36, length, head=True) * 8) * groups,
                1.0,
                lambda n=network, p=prompts, s=drawn: sample(n.model, p, 8, s, seed=0, stop_ids=[], pad_id=0),
            ),
            "score": (scoring_work(batch, method), 1.0, lambda n=network, p=pairs: score(n, p, pad_id=0, budget=4096)),
            "update": (
                update_work(replace(batch, prompt=36), grpo),
                3.0,
                lambda n=network, m=mini_batch: accumulate(n, m, pad_id=0, budget=4096),
            ),
        }
        for phase, (work, times, run) in phases.items():
            with counted(network) as count:
                run()
            seconds, needed = cpu_seconds(run), times * flops(shape, work) / rate
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
    write(json, {"points": records, "rate": rate})


def published(method: str, *overrides: str) -> Any:
    return load([f"method={method}", "model=qwen3_4b", "task=math_deepmath", "engine=verl", *overrides])


def ratio() -> None:
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
    for name, (length, correct, overrides) in cases.items():
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("check", "ratio", "hours"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    {"check": lambda: check(arguments.json), "ratio": ratio, "hours": hours}[arguments.what]()


if __name__ == "__main__":
    main()
