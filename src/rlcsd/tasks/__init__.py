"""Tasks: data and a verifier."""

from .base import Problem, Reward, Task, Verdict

__all__ = ["Problem", "Reward", "Task", "Verdict"]
