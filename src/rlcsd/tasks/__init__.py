"""Tasks: training problems, evaluation sets and a verifier. Importing this package registers its kinds of task."""

from . import environments as environments
from . import given_task as given_task
from . import own_data as own_data
from . import parquet_layout as parquet_layout
from . import reasoning_gym as reasoning_gym
from .knights_and_knaves import puzzle_data as puzzle_data
from .task import Problem, Reward, Task, Verdict

__all__ = ["Problem", "Reward", "Task", "Verdict"]
