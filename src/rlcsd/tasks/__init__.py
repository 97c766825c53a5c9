"""Tasks: data and a verifier."""

from .task import Problem, Reward, Task, Verdict

__all__ = ["Problem", "Reward", "Task", "Verdict"]
