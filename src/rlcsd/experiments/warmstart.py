"""Supervised warm start of a tiny base model: tokenizer, training, and the model card (`rlcsd warmstart`).

Examples are drawn on the fly, the matrices are trained with Muon and everything else with AdamW, and training stops
as soon as the gates of the recipe pass.
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
from .examples import Example, puzzle_example, roll_call_example
from .gates import GateReport, measure_puzzles, measure_roll_call
from .recipe import PuzzleRecipe, Recipe

_CLAIM = r"\w+ (?:is (?:not )?a kn(?:ight|ave)|says)"
_PRE_TOKEN = rf" ?{_CLAIM}|[^\w\s]?(?: ?(?!{_CLAIM})\w+)+|[^\w\s]+|\s"
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n'"
    " + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_CORPUS = 3000  # examples that the tokenizer is trained on

Offsets = Sequence[tuple[int, int]]
Weights = Callable[[str, Offsets], list[float]]  # loss weights of a response's tokens, given as (start, end)
Encoded = tuple[list[int], list[int], list[float]]  # prompt ids, response ids, loss weights of the response tokens


# Tokenizer


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer of at most `vocab_size` entries, with a ChatML template; deterministic in `texts`.

    Byte-level BPE over pre-tokens that keep a claim ("Alice is a knave") whole, so that one claim becomes one token.
    Any other text still encodes, byte by byte if it must, so the model accepts every template and task.
    """
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PRE_TOKEN), behavior="isolated"),
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
    """Add a token for each claim in `texts` that the tokenizer splits; returns how many were added.

    The embedding of a new claim is sampled around those of the same claim about people that the tokenizer knows.
    """
    claims = {match.group() for text in texts for match in re.finditer(f" {_CLAIM}", text)}
    new = sorted(claim for claim in claims if len(tokenizer(claim, add_special_tokens=False).input_ids) > 1)
    known = [tokenizer.decode([token]) for token in range(len(tokenizer))]
    tokenizer.add_tokens([AddedToken(claim, normalized=False) for claim in new])
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    embeddings = model.get_input_embeddings().weight.data
    for token, claim in enumerate(new, len(known)):
        rest = claim.split(" ", 2)[2]
        similar = embeddings[[index for index, text in enumerate(known) if re.fullmatch(rf" \w+ {rest}", text)]]
        embeddings[token] = similar.mean(dim=0) + similar.std(dim=0) * torch.randn(similar.shape[1])
    return len(new)


# What differs between tasks


def puzzle_weights(verdict: float, text: str, offsets: Offsets) -> list[float]:
    """`verdict` on verdicts and in the box, 1 elsewhere."""
    return [verdict if kind in ("verdict", "conclusion") else 1.0 for kind in kinds_of(text, offsets)]


def roll_call_weights(verdict: float, text: str, offsets: Offsets) -> list[float]:
    """`verdict` on verdicts, 2 in the box, 1 elsewhere.

    The `;` that begins a worked line stands where a bare line has its verdict. With a smaller weight the model would
    write fewer worked lines than it was shown.
    """
    kinds = kinds_of(text, offsets)
    pieces = [text[start:end] for start, end in offsets]
    return [
        verdict if kind == "verdict" or piece.startswith(";") else 2.0 if kind == "conclusion" else 1.0
        for kind, piece in zip(kinds, pieces, strict=True)
    ]


@dataclass(frozen=True)
class WarmstartTask:
    """Examples, loss weights (given the weight of a verdict first) and gates of a task, and two texts of the card.

    `about` describes the model, `figures` what the report's figures mean.
    """

    draw: Callable[[Any, random.Random], Example]
    weights: Callable[[float, str, Offsets], list[float]]
    measure: Callable[[Any, Any, Any], GateReport]
    about: str
    figures: str


WARMSTART_TASKS: dict[str, WarmstartTask] = {
    "knights_and_knaves": WarmstartTask(
        puzzle_example,
        puzzle_weights,
        measure_puzzles,
        "A very small Qwen3-architecture language model that solves Knights & Knaves puzzles some of the time and "
        "reads\nreference solutions.",
        "What a hint does to the conclusion tokens of the model's own rollouts, by whether they are correct (nats, "
        "mean;\nthe contrast is e_ctr of RLCSD):",
    ),
    "roll_call": WarmstartTask(
        roll_call_example,
        roll_call_weights,
        measure_roll_call,
        "A very small Qwen3-architecture language model that judges what five speakers say of three people whose roles "
        "are\nknown, gets all five right some of the time, and reads reference solutions.",
        "Shares of all lines, the standard deviation over responses of their share of worked lines, interjections per "
        "line;\nthe AUC of e_ctr (RLCSD) for right against wrong decisions, and its mean on both (nats):",
    ),
}


# Model and training


def new_model(recipe: Recipe, vocabulary: int, tokenizer: Any) -> Qwen3ForCausalLM:
    """A random Qwen3 model of the recipe's size."""
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


def _start(recipe: Recipe, task: WarmstartTask, rng: random.Random, device: torch.device) -> tuple[Network, Any]:
    """The model and tokenizer that the recipe starts from; a new tokenizer is trained on examples of the recipe."""
    corpus = (
        text
        for _ in range(_CORPUS)
        for example in [task.draw(recipe, rng)]
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


def encode(tokenizer: Any, example: Example, weights: Weights) -> Encoded:
    """Token ids of the prompt and of the response with its end token, and the loss weight of each response token."""
    response = tokenizer(example.response, add_special_tokens=False).input_ids
    weighted = weights(*token_offsets(tokenizer, response))
    return render(tokenizer, example.prompt), [*response, tokenizer.convert_tokens_to_ids(END)], [*weighted, 1.0]


def weighted_loss(network: Network, rows: Sequence[Encoded], pad: int) -> Tensor:
    """Sum of weighted cross-entropies over all response tokens of `rows`, which are padded to one batch."""
    ids, mask = padded([prompt + response for prompt, response, _ in rows], pad, network.device, left=False)
    weights = torch.zeros(ids.shape, device=network.device)
    for index, (prompt, response, weight) in enumerate(rows):
        weights[index, len(prompt) - 1 : len(prompt) + len(response) - 1] = torch.tensor(weight, device=network.device)
    chosen = weights > 0
    hidden = network.hidden(input_ids=ids, attention_mask=mask, use_cache=False)
    output = network.head(hidden[chosen], ids.roll(-1, dims=1)[chosen], entropy=False)
    return -(output.log_prob * weights[chosen]).sum()


def backward(network: Network, rows: Sequence[Encoded], pad: int, budget: int = 2048) -> float:
    """Accumulate the gradient of the weighted mean loss over `rows`; returns the loss.

    Rows of similar length share a micro-batch of at most `budget` tokens.
    """
    total = sum(sum(weights) for _, _, weights in rows)
    lengths = [len(prompt) + len(response) for prompt, response, _ in rows]
    value = 0.0
    for chunk in micro_batches(lengths, range(len(rows)), budget):
        loss = weighted_loss(network, [rows[index] for index in chunk], pad) / total
        loss.backward()
        value += loss.item()
    return value


def optimizers(model: nn.Module, recipe: Recipe) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the hidden matrices and AdamW for embeddings and norms, each with its learning rate."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    muon = torch.optim.Muon(matrices, lr=recipe.matrix_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(others, lr=recipe.other_rate, weight_decay=0.0, betas=(0.9, 0.98))
    return [(muon, recipe.matrix_rate), (adam, recipe.other_rate)]


def _optimizer_step(pairs: Sequence[tuple[torch.optim.Optimizer, float]], recipe: Recipe, step: int) -> None:
    """Step every optimizer at its learning rate: linear warm-up over `ramp` steps, then linear decay."""
    decay = 1 - (1 - recipe.final_rate) * step / recipe.steps
    for optimizer, rate in pairs:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(step / recipe.ramp, decay)
        optimizer.step()


def warmstart(
    recipe: Recipe, out: Path, device: torch.device | None = None, log: Callable[[str], None] = print
) -> GateReport:
    """Train a base until its gates pass, and save it to `out`, the whole folder or nothing.

    Returns the last report; `report.passed` is False if the steps ran out first, and then nothing is saved.
    """
    device = device or torch.device("cpu")
    torch.manual_seed(recipe.seed)
    rng = random.Random(f"warmstart/{recipe.seed}")
    task = WARMSTART_TASKS[recipe.task]
    network, tokenizer = _start(recipe, task, rng, device)
    parameters = sum(p.numel() for p in network.model.parameters())
    log(f"{parameters / 1e6:.2f} M parameters, {len(tokenizer)} tokens in the vocabulary")
    pairs, weights = optimizers(network.model, recipe), partial(task.weights, recipe.verdict_weight)
    begun, report = time.perf_counter(), GateReport.not_measured()
    for step in range(1, recipe.steps + 1):
        rows = [encode(tokenizer, task.draw(recipe, rng), weights) for _ in range(recipe.batch)]
        loss = backward(network, rows, tokenizer.pad_token_id)
        nn.utils.clip_grad_norm_(network.model.parameters(), 1.0)
        _optimizer_step(pairs, recipe, step)
        network.model.zero_grad(set_to_none=True)
        if step % 50 == 0:
            log(f"step {step}: loss {loss:.3f} ({time.perf_counter() - begun:.0f} s)")
        if step >= recipe.gates.start and step % recipe.gates.every == 0:
            report = task.measure(network, tokenizer, recipe)
            log(f"step {step}: {report}")
            if report.passed:
                with whole_folder(out) as unfinished:
                    network.model.save_pretrained(unfinished)
                    tokenizer.save_pretrained(unfinished)
                    card = model_card(recipe, task, report, step)
                    (unfinished / "README.md").write_text(card, encoding="utf-8")
                return report
    return report


# Model card


def _training_share(size: int, recipe: Recipe) -> str:
    """Remark on a problem size that reinforcement learning does not train on."""
    if not isinstance(recipe, PuzzleRecipe) or size in recipe.train_sizes:
        return ""
    share = recipe.sizes.count(size) / len(recipe.sizes)
    return f" ({share:.0%} of the warm-up; never in reinforcement learning)" if share else " (never trained on)"


def model_card(recipe: Recipe, task: WarmstartTask, report: GateReport, step: int) -> str:
    """Markdown that says what the model is, how it was made, what it can do, and what it is not for."""
    rates = "\n".join(
        f"| {size} {report.size_unit}{_training_share(size, recipe)} | {rate:.3f} |"
        for size, rate in report.accuracy.items()
    )
    figures = "\n".join(f"| {name} | {value:+.3f} |" for name, value in report.figures.items())
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

{task.about} It exists to make reinforcement-learning methods visible on a laptop. It knows nothing else.

Made by `rlcsd warmstart {recipe.name}`{origin}, supervised on synthetic puzzles only, stopped at step {step} when
its gates passed. Puzzles whose canonical form belongs to the validation or test split were never drawn.

| pass@1 at T = 1, validation puzzles | |
|---|---|
{rates}

Mean response length on the training sizes: {report.length:.0f} tokens.

{task.figures}

| figure | |
|---|---|
{figures}

## Recipe

{settings}
"""
