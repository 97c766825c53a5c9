"""Held-out accuracy: sampled and graded answers, their summaries, and the folder of a stand-alone evaluation."""

from .answers import EvaluationFolder, EvaluationSettings, answer_problems, check, evaluate
from .summary import (
    LEAST_PROBLEMS,
    Answered,
    Summary,
    interval_over_problems,
    markdown_table,
    no_longer_better,
    outcomes,
    reported,
    reported_average,
    sample_answers,
    summaries_of,
    summarise,
)

__all__ = [
    "LEAST_PROBLEMS",
    "Answered",
    "EvaluationFolder",
    "EvaluationSettings",
    "Summary",
    "answer_problems",
    "check",
    "evaluate",
    "interval_over_problems",
    "markdown_table",
    "no_longer_better",
    "outcomes",
    "reported",
    "reported_average",
    "sample_answers",
    "summaries_of",
    "summarise",
]
