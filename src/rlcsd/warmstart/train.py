"""The supervised warm-up: examples drawn on the fly, Muon on the matrices, stopped by the gates."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from ..config.schema import ModelConfig
from ..decoding import token_offsets
from ..engine.local.batching import micro_batches, padded
from ..engine.local.network import Network, load_network, load_tokenizer
from ..folders import whole_folder
from ..prompts import render
from .examples import Example
from .gates import GateReport
from .kinds import KINDS, Kind, Weights
from .model_card import model_card
from .recipe import Recipe
from .tokenizer import END, add_claims, train_tokenizer

Encoded = tuple[list[int], list[int], list[float]]  # prompt ids, response ids, weights of the response tokens

_CORPUS = 3000  # examples the tokenizer learns from


def new_model(recipe: Recipe, vocabulary: int, tokenizer: Any) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.feed_forward,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        head_dim=recipe.hidden // recipe.heads,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config)


def encode(tokenizer: Any, example: Example, weights: Weights) -> Encoded:
    """Prompt ids, response ids with the end token, and the loss weight of each response token."""
    response = tokenizer(example.response, add_special_tokens=False).input_ids
    weighed = weights(*token_offsets(tokenizer, response))
    return render(tokenizer, example.prompt), [*response, tokenizer.convert_tokens_to_ids(END)], [*weighed, 1.0]


def weighted_loss(network: Network, rows: Sequence[Encoded], pad: int) -> Tensor:
    """Sum of weighted cross-entropies over the response tokens."""
    ids, mask = padded([prompt + response for prompt, response, _ in rows], pad, network.device, left=False)
    weights = torch.zeros(ids.shape, device=network.device)
    for index, (prompt, response, weight) in enumerate(rows):
        weights[index, len(prompt) - 1 : len(prompt) + len(response) - 1] = torch.tensor(weight, device=network.device)
    chosen = weights > 0
    hidden = network.hidden(input_ids=ids, attention_mask=mask, use_cache=False)
    output = network.head(hidden[chosen], ids.roll(-1, dims=1)[chosen], entropy=False)
    return -(output.log_prob * weights[chosen]).sum()


def backward(network: Network, rows: Sequence[Encoded], pad: int, budget: int = 2048) -> float:
    """Accumulate the gradient of the weighted mean loss over `rows`, short rows with short ones; returns the loss."""
    total = sum(sum(weights) for _, _, weights in rows)
    lengths = [len(prompt) + len(response) for prompt, response, _ in rows]
    value = 0.0
    for chunk in micro_batches(lengths, range(len(rows)), budget):
        loss = weighted_loss(network, [rows[index] for index in chunk], pad) / total
        loss.backward()
        value += loss.item()
    return value


def optimizers(model: nn.Module, recipe: Recipe) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon (torch.optim) for the hidden matrices, AdamW for embeddings and norms; each with its rate."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    muon = torch.optim.Muon(matrices, lr=recipe.matrix_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(others, lr=recipe.other_rate, weight_decay=0.0, betas=(0.9, 0.98))
    return [(muon, recipe.matrix_rate), (adam, recipe.other_rate)]


def _beginning(recipe: Recipe, kind: Kind, rng: random.Random, device: torch.device) -> tuple[Network, Any]:
    """The model that the recipe starts from with its tokenizer, or a new one with a tokenizer for its examples."""
    corpus = (
        text
        for _ in range(_CORPUS)
        for example in [kind.draw(recipe, rng)]
        for text in (example.prompt, example.response)
    )
    if recipe.start is not None:
        config = ModelConfig(path=recipe.start)
        model, tokenizer = load_network(config, torch.device("cpu")).model, load_tokenizer(config)
        if recipe.new_people:
            add_claims(model, tokenizer, corpus)
        return Network(model.train().to(device)), tokenizer
    tokenizer = train_tokenizer(corpus, recipe.vocabulary)
    return Network(new_model(recipe, len(tokenizer), tokenizer).to(device)), tokenizer


def warmstart(
    recipe: Recipe, out: Path, device: torch.device | None = None, tell: Callable[[str], None] = print
) -> GateReport:
    """Train a base until its gates open, and save it to `out` (whole, or not at all).

    Returns the gates' last report; `report.open` is False if the steps ran out first, and then nothing is saved.
    """
    device = device or torch.device("cpu")
    torch.manual_seed(recipe.seed)
    rng = random.Random(f"warmstart/{recipe.seed}")
    kind = KINDS[recipe.task]
    network, tokenizer = _beginning(recipe, kind, rng, device)
    tell(
        f"{sum(p.numel() for p in network.model.parameters()) / 1e6:.2f} M parameters, {len(tokenizer)} tokens "
        "in the vocabulary"
    )
    pairs, weights = optimizers(network.model, recipe), partial(kind.weights, recipe.verdict_weight)
    begun, report = time.perf_counter(), GateReport.closed()
    for step in range(1, recipe.steps + 1):
        rows = [encode(tokenizer, kind.draw(recipe, rng), weights) for _ in range(recipe.batch)]
        loss = backward(network, rows, tokenizer.pad_token_id)
        nn.utils.clip_grad_norm_(network.model.parameters(), 1.0)
        decay = 1 - (1 - recipe.final_rate) * step / recipe.steps
        for optimizer, rate in pairs:
            for group in optimizer.param_groups:
                group["lr"] = rate * min(step / recipe.ramp, decay)
            optimizer.step()
        network.model.zero_grad(set_to_none=True)
        if step % 50 == 0:
            tell(f"step {step}: loss {loss:.3f} ({time.perf_counter() - begun:.0f} s)")
        gates = recipe.gates
        if step >= gates.start and step % gates.every == 0:
            report = kind.measure(network, tokenizer, recipe)
            tell(f"step {step}: {report}")
            if report.open:
                with whole_folder(out) as unfinished:
                    network.model.save_pretrained(unfinished)
                    tokenizer.save_pretrained(unfinished)
                    (unfinished / "README.md").write_text(
                        model_card(recipe, kind.about, kind.signals, report, step), encoding="utf-8"
                    )
                return report
    return report
