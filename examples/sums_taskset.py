"""A taskset of the verifiers package (0.4 and later), and training on it:

PYTHONPATH=examples rlcsd train task=environment task.environment=sums-taskset steps=2 sampling.max_tokens=32
"""

from collections.abc import Iterator

import verifiers.v1 as vf

__all__ = ["Sums"]


class Data(vf.TaskData):
    answer: str


class Sum(vf.Task[Data]):
    @vf.reward(weight=1.0)
    async def right(self, trace) -> float:
        return float(f"\\boxed{{{self.data.answer}}}" in trace.last_reply)


class Config(vf.TasksetConfig):
    size: int = 64


class Sums(vf.Taskset[Sum, Config]):
    """Sums of two small numbers; `task.arguments={size: 200}` sets how many."""

    def load(self) -> Iterator[Sum]:
        for n in range(self.config.size):
            a, b = n % 8, n // 8
            yield Sum(Data(prompt=f"{a} + {b} = ?", answer=str(a + b)), self.config.task)
