"""Random mini-batches for tests of methods."""

from __future__ import annotations

import torch

from rlcsd.methods import Method, StudentLogProbs, TokenBatch


def random_batch(method: Method, lengths: list[int], seed: int = 0, vocab: int = 30, k: int = 8, wrong: int = 3):
    """Student logits `[N, V]` (float64, a leaf), sampled ids `[N]`, and all columns that a method may need."""
    g = torch.Generator().manual_seed(seed)
    n = sum(lengths)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, vocab, generator=g, dtype=torch.float64)

    logits = draw(n).requires_grad_()
    ids = torch.randint(vocab, (n,), generator=g)
    rows = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    advantage = torch.randn(len(lengths), generator=g, dtype=torch.float64)[rows]
    teacher, old = draw(n).log_softmax(-1), draw(n).log_softmax(-1)
    wrong_full = draw(n, wrong).log_softmax(-1)
    valid = torch.rand(len(lengths), wrong, generator=g) < 0.7
    valid[:, 0] = True

    def chosen(full: torch.Tensor) -> torch.Tensor:
        return full.gather(-1, ids[:, None])[:, 0]

    batch = TokenBatch(
        rollout=rows,
        advantage=advantage,
        old_log_prob=chosen(old),
        correction=torch.rand(n, generator=g, dtype=torch.float64) + 0.5,
        hinted=torch.ones(n, dtype=torch.bool),
        is_correct=advantage > 0,
        entropy=-(old.exp() * old).sum(-1),
        teacher_log_prob=chosen(teacher),
        teacher_entropy=-(teacher.exp() * teacher).sum(-1),
        contrast_log_prob=wrong_full.gather(-1, ids[:, None, None].expand(-1, wrong, 1))[..., 0],
        contrast_valid=valid[rows],
    )
    if method.topk_from != "none":
        source = teacher if method.topk_from == "teacher" else logits.detach().log_softmax(-1)
        support = source.topk(k).indices
        batch = batch.with_columns(
            topk_ids=support,
            teacher_topk=teacher.gather(-1, support),
            contrast_topk=wrong_full[:, 0].gather(-1, support),
        )
    return logits, ids, batch


def policy_of(logits: torch.Tensor, ids: torch.Tensor, batch: TokenBatch) -> StudentLogProbs:
    full = logits.log_softmax(-1)
    at_support = None if batch.topk_ids is None else full.gather(-1, batch.topk_ids)
    return StudentLogProbs(full.gather(-1, ids[:, None])[:, 0], at_support)
