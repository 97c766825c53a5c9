"""Roll call: known roles, speakers who are each a decision of their own, worked solutions, and labels of decisions."""

from .data import FORMS, Supply, draw_problems, split_of
from .labels import Line, Reading, decisions, read, style_figures, token_labels
from .roll import Roll, canonical_form, draw_roll
from .text import Manner, answer_text, judgements, parse_question, question_text, slipped, solution_text

__all__ = [
    "FORMS",
    "Line",
    "Manner",
    "Reading",
    "Roll",
    "Supply",
    "answer_text",
    "canonical_form",
    "decisions",
    "draw_problems",
    "draw_roll",
    "judgements",
    "parse_question",
    "question_text",
    "read",
    "slipped",
    "solution_text",
    "split_of",
    "style_figures",
    "token_labels",
]
