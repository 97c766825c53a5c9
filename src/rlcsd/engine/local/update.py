"""One optimizer mini-batch, cut into micro-batches by tokens; the gradient does not depend on the cut."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...methods.base import Evidence, Method, Policy
from ..base import Pair
from .caches import SharedPrompts, slides
from .network import Network
from .prefixes import batches


@dataclass(frozen=True)
class Regularisers:
    """Optional terms on top of any method: reference KL (`low_var_kl`) and an entropy bonus."""

    kl: float = 0.0
    entropy: float = 0.0

    @property
    def any(self) -> bool:
        return self.kl > 0 or self.entropy > 0


def micro_batches(lengths: Sequence[int], rows: Sequence[int], budget: int) -> Iterator[list[int]]:
    """`rows` sorted by length and cut so that count × longest stays within `budget` tokens, if one row does."""
    for batch in batches([lengths[row] for row in rows], budget):
        yield [rows[place] for place in batch]


def low_variance_kl(log_prob: Tensor, reference: Tensor) -> Tensor:
    """min(exp(r − p) − (r − p) − 1, 10) per token, p and r log-probs of policy and reference (Schulman's k3)."""
    gap = (reference - log_prob).clamp(-20, 20)
    return (gap.exp() - gap - 1).clamp(max=10)


def response_hidden(network: Network, pairs: Sequence[Pair], pad: int, shared: SharedPrompts | None = None) -> Tensor:
    """Hidden states that predict each response token, `[n, H]`, with gradient; rows are right-padded."""
    if shared is not None:
        return shared.hidden(pairs)
    rows = [(*pair.context, *pair.response) for pair in pairs]
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    chosen = torch.zeros(len(rows), width, dtype=torch.bool)
    for index, (pair, row) in enumerate(zip(pairs, rows, strict=True)):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
        chosen[index, len(pair.context) - 1 : len(row) - 1] = True
    device = network.device
    hidden = network.hidden(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False)
    return hidden[chosen.to(device)]


def shared_prompts(network: Network, pairs: Sequence[Pair], pad: int) -> SharedPrompts | None:
    """The pairs' prompts computed once; None where that does not pay or cannot be.

    It cannot under gradient checkpointing, which keeps no cache, nor is it tried with sliding windows. How a mini-batch
    is cut does not enter, so the result does not depend on it.
    """
    prompts = list(dict.fromkeys(pair.context for pair in pairs))
    checkpointed = any(getattr(module, "gradient_checkpointing", False) for module in network.core.modules())
    if (
        not pairs
        or slides(network.core.config)
        or checkpointed
        or 2 * len(prompts) > len(pairs)
        or any(len(prompt) < 2 for prompt in prompts)
    ):
        return None
    return SharedPrompts(network, prompts, pad)


def accumulate(
    network: Network,
    pairs: Sequence[Pair],
    evidence: Evidence,
    method: Method,
    *,
    pad_id: int,
    budget: int,
    regularisers: Regularisers | None = None,
    reference: Tensor | None = None,
) -> dict[str, float]:
    """Add the mini-batch's gradient to the policy; returns metrics (`actor/…`).

    `evidence` is prepared and in the order of `pairs`. Rows none of whose tokens can have a gradient are
    not computed; their tokens have already counted in the weights.
    """
    regularisers = regularisers or Regularisers()
    lengths = [len(pair.context) + len(pair.response) for pair in pairs]
    starts = torch.tensor([0, *(len(pair.response) for pair in pairs)]).cumsum(0).tolist()
    needed = method.needs_update(evidence)
    rows = [row for row in range(len(pairs)) if regularisers.any or bool(needed[starts[row] : starts[row + 1]].any())]
    sums: dict[str, float] = defaultdict(float)
    with network.precision():
        shared = shared_prompts(network, [pairs[row] for row in rows], pad_id)
    if shared is not None:
        lengths = [len(pair.response) for pair in pairs]
    for chunk in micro_batches(lengths, rows, budget):
        tokens = torch.cat([torch.arange(starts[row], starts[row + 1]) for row in chunk]).to(network.device)
        ids = torch.tensor([token for row in chunk for token in pairs[row].response], device=network.device)
        part = evidence[tokens]
        with network.precision():
            hidden = response_hidden(network, [pairs[row] for row in chunk], pad_id, shared)
            output = network.head(hidden, ids, part.support, entropy=regularisers.entropy > 0)  # type: ignore[operator]
        # In float64 from here: differences of close log-probs keep their digits.
        at_support = None if output.support_log_prob is None else output.support_log_prob.double()
        loss = method.token_loss(Policy(output.log_prob.double(), at_support), part).sum()
        if regularisers.kl > 0:
            assert reference is not None
            loss = loss + regularisers.kl * low_variance_kl(output.log_prob, reference[tokens]).sum() / len(evidence)
        if regularisers.entropy > 0:
            loss = loss - regularisers.entropy * output.entropy.sum() / len(evidence)
        loss.backward()
        _add_metrics(sums, loss.detach(), output.log_prob.detach(), part, method)
    if shared is not None:
        shared.backward()
    count = max(sums.pop("tokens", 0.0), 1.0)
    found = {name: value / count for name, value in sums.items() if name != "actor/loss"}
    return {**found, "actor/loss": sums["actor/loss"], "actor/updated_share": len(rows) / max(len(pairs), 1)}


def _add_metrics(sums: dict[str, float], loss: Tensor, log_prob: Tensor, part: Evidence, method: Method) -> None:
    log_ratio = log_prob - part.old_log_prob
    sums["tokens"] += len(part)
    sums["actor/loss"] += float(loss)
    sums["actor/kl_to_old"] += float((-log_ratio).sum())
    epsilon = getattr(method.config, "epsilon", None)
    if epsilon is not None:
        rho, a = log_ratio.exp(), method.clipped_advantage(log_prob, part)
        clipped = ((a > 0) & (rho > 1 + epsilon)) | ((a < 0) & (rho < 1 - epsilon))
        sums["actor/clip_fraction"] += float(clipped.sum())
