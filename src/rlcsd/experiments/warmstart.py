"""A small vocabulary in which one claim is one token.

Byte-level BPE, trained on the puzzles' own text, over pre-tokens that keep a claim ("Alice is a knave")
whole and let other words of a phrase merge across spaces. Any other text still encodes, byte by byte if it
must, so the tiny model accepts every template and every task.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from ..config.schema import ModelConfig
from ..decoding import token_offsets
from ..engine.local.caches import micro_batches, padded
from ..engine.local.model import Network, load_network, load_tokenizer
from ..inspection.signals import kinds_of
from ..prompts import render
from ..storage import whole_folder
from .examples import Example, draw_example, draw_roll_call
from .gates import GateReport, measure_puzzles, measure_roll_call
from .recipe import PuzzleRecipe, Recipe

_CLAIM = r"\w+ (?:is (?:not )?a kn(?:ight|ave)|says)"
PRE_TOKEN = rf" ?{_CLAIM}|[^\w\s]?(?: ?(?!{_CLAIM})\w+)+|[^\w\s]+|\s"
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n'"
    " + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A tokenizer of at most `vocab_size` entries, with a ChatML template; deterministic in `texts`."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRE_TOKEN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=END, pad_token=PAD, padding_side="left")
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def add_claims(model: Any, tokenizer: Any, texts: Iterable[str]) -> int:
    """Make each claim in `texts` one token, also about people that the tokenizer has not met; returns how many are new.

    The embedding of a new claim is drawn around those of the same claim about others.
    """
    claims = {match.group() for text in texts for match in re.finditer(f" {_CLAIM}", text)}
    new = sorted(claim for claim in claims if len(tokenizer(claim, add_special_tokens=False).input_ids) > 1)
    known = [tokenizer.decode([token]) for token in range(len(tokenizer))]
    tokenizer.add_tokens([AddedToken(claim, normalized=False) for claim in new])
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    embeddings = model.get_input_embeddings().weight.data
    for token, claim in enumerate(new, len(known)):
        rest = claim.split(" ", 2)[2]
        like = embeddings[[place for place, text in enumerate(known) if re.fullmatch(rf" \w+ {rest}", text)]]
        embeddings[token] = like.mean(dim=0) + like.std(dim=0) * torch.randn(like.shape[1])
    return len(new)


# ------------------------------------------------------------------ model_card
# The model card that is saved with a warm-started base.


def _standing(size: int, recipe: Recipe) -> str:
    if not isinstance(recipe, PuzzleRecipe) or size in recipe.train_sizes:
        return ""
    share = recipe.sizes.count(size) / len(recipe.sizes)
    return f" ({share:.0%} of the warm-up; never in reinforcement learning)" if share else " (never trained on)"


def model_card(recipe: Recipe, about: str, signals_are: str, report: GateReport, step: int) -> str:
    """Markdown: what the model is, how it was made, what it can do, what it is not for.

    `about` says what the model is, `signals_are` what the figures of the report's `signals` mean.
    """
    rates = "\n".join(
        f"| {size} {report.noun}{_standing(size, recipe)} | {rate:.3f} |" for size, rate in report.accuracy.items()
    )
    signals = "\n".join(f"| {name} | {value:+.3f} |" for name, value in report.signals.items())
    settings = "\n".join(
        f"* {key}: {value}" for key, value in recipe.model_dump().items() if key not in ("name", "gates")
    )
    origin = f" from `model.path={recipe.start}`" if recipe.start else ""
    return f"""---
license: apache-2.0
library_name: transformers
tags: [reasoning, {recipe.task.replace("_", "-")}, synthetic]
---
# {recipe.name}

{about} It exists to make reinforcement-learning methods visible on a laptop. It knows nothing else.

Made by `rlcsd warmstart {recipe.name}`{origin}, supervised on synthetic puzzles only, stopped at step {step} when
its gates opened. Puzzles whose canonical form belongs to the validation or test split were never drawn.

| pass@1 at T = 1, validation puzzles | |
|---|---|
{rates}

Mean response length on the training sizes: {report.length:.0f} tokens.

{signals_are}

| figure | |
|---|---|
{signals}

## Recipe

{settings}
"""


# ------------------------------------------------------------------ kinds
# What a warm start needs of a task: examples, the weights of their tokens, and the measurement behind the gates.

Offsets = Sequence[tuple[int, int]]
Weights = Callable[[str, Offsets], list[float]]  # of a response and the (start, end) of each token: loss weights


def puzzle_weights(verdict: float, text: str, offsets: Offsets) -> list[float]:
    """`verdict` on verdicts and in the box, 1 elsewhere."""
    return [verdict if kind in ("verdict", "conclusion") else 1.0 for kind in kinds_of(text, offsets)]


def roll_call_weights(verdict: float, text: str, offsets: Offsets) -> list[float]:
    """`verdict` on verdicts, 2 in the box, 1 elsewhere.

    The `;` that begins a worked line stands where a bare line has its verdict. It weighs as much, or the model would
    write fewer worked lines than it was shown.
    """
    kinds = kinds_of(text, offsets)
    pieces = [text[start:end] for start, end in offsets]
    return [
        verdict if kind == "verdict" or piece.startswith(";") else 2.0 if kind == "conclusion" else 1.0
        for kind, piece in zip(kinds, pieces, strict=True)
    ]


@dataclass(frozen=True)
class Kind:
    """`weights` takes a verdict's weight first; `about` and `signals` are what the model card says of the model and of
    the signals that are measured."""

    draw: Callable[[Any, random.Random], Example]
    weights: Callable[[float, str, Offsets], list[float]]
    measure: Callable[[Any, Any, Any], GateReport]
    about: str
    signals: str


KINDS: dict[str, Kind] = {
    "knights_and_knaves": Kind(
        draw_example,
        puzzle_weights,
        measure_puzzles,
        "A very small Qwen3-architecture language model that solves Knights & Knaves puzzles some of the time and "
        "reads\nreference solutions.",
        "What a hint does to the conclusion tokens of the model's own rollouts, by whether they are correct (nats, "
        "mean;\nthe contrast is e_ctr of RLCSD):",
    ),
    "roll_call": Kind(
        draw_roll_call,
        roll_call_weights,
        measure_roll_call,
        "A very small Qwen3-architecture language model that judges what five speakers say of three people whose roles "
        "are\nknown, gets all five right some of the time, and reads reference solutions.",
        "Shares of all lines, the standard deviation over responses of their share of worked lines, interjections per "
        "line;\nthe AUC of e_ctr (RLCSD) for right against wrong decisions, and its mean on both (nats):",
    ),
}


# ------------------------------------------------------------------ train
# The supervised warm-up: examples drawn on the fly, Muon on the matrices, stopped by the gates.

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
