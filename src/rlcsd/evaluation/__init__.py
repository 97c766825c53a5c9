"""Held-out accuracy: answers, what they amount to, and the folder of a stand-alone evaluation."""

from .answers import EvaluationFolder, EvaluationSettings, answer_problems, check, evaluate
from .summary import Answered, Summary, markdown_table, outcomes, summarise

__all__ = [
    "Answered",
    "EvaluationFolder",
    "EvaluationSettings",
    "Summary",
    "answer_problems",
    "check",
    "evaluate",
    "markdown_table",
    "outcomes",
    "summarise",
]
