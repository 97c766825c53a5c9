"""Counted work of forward passes, and its FLOPs: what the cost model estimates and what a run reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # at run time engines import this module first
    from .local.memory import Shape


@dataclass(frozen=True)
class Work:
    """Tokens that go through the layers, keys attended to by all of them, and tokens that go through the head."""

    tokens: float = 0.0
    attended: float = 0.0
    head: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.tokens + other.tokens, self.attended + other.attended, self.head + other.head)

    def __mul__(self, count: float) -> Work:
        return Work(self.tokens * count, self.attended * count, self.head * count)


def after(context: float, tokens: float, head: bool = False) -> Work:
    """Work of `tokens` that follow `context` cached ones, with or without the head for each."""
    return Work(tokens, tokens * (context + tokens / 2), tokens if head else 0.0)


def flops(shape: Shape, work: Work) -> float:
    """FLOPs of a forward pass: 2 for each weight and token, 4 for each attended key and dimension of the heads."""
    body = shape.parameters - shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    head = 2.0 * shape.vocabulary * shape.hidden * work.head
    return 2.0 * body * work.tokens + 4.0 * shape.layers * shape.queries * work.attended + head
