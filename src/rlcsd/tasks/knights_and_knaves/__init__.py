"""Knights & Knaves: puzzles with one provable solution, their text, and worked solutions."""

from .puzzle_data import Recipe, draw_problems, split_of
from .puzzle_text import NAMES, answer_text, assignment_text, puzzle_text
from .puzzles import FORMS, Atom, Puzzle, Statement, canonical_form, draw_puzzle, solutions

__all__ = [
    "FORMS",
    "NAMES",
    "Atom",
    "Puzzle",
    "Recipe",
    "Statement",
    "answer_text",
    "assignment_text",
    "canonical_form",
    "draw_problems",
    "draw_puzzle",
    "puzzle_text",
    "solutions",
    "split_of",
]
