"""The task `roll_call`: its parameters, and the problems that are drawn when a run starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from ..errors import InputError
from ..tasks.knights_and_knaves import NAMES
from ..tasks.registry import TaskParameters, register
from ..tasks.task import Task
from .decision_labels import style_figures
from .roll_call import ROLL_CALL_FORMS, Supply, draw_problems


class RollCallParameters(TaskParameters):
    """Roll calls drawn on the spot; the unseen sizes, with `unseen_known` known people, are never trained on."""

    train_sizes: list[int] = Field([5], description="speakers per roll call in the training set")
    known: int = Field(3, description="people whose roles the question gives, from 2 to 6")
    unseen_sizes: list[int] = Field([4], description="speakers per roll call in the evaluation set of another kind")
    unseen_known: int = Field(4, description="people whose roles are given in that set")
    train_per_size: int = Field(2048, ge=1, description="training roll calls of each size")
    eval_per_size: int = Field(100, ge=1, description="evaluation roll calls of each size")
    eval_split: Literal["val", "test"] = Field("val", description="split that evaluation roll calls are drawn from")
    forms: list[str] = Field(list(ROLL_CALL_FORMS), description="forms of statements: " + ", ".join(ROLL_CALL_FORMS))
    people: int = Field(8, ge=3, le=len(NAMES), description="how many of the names are used")
    worked: float = Field(0.0, ge=0, le=1, description="share of worked lines in the solutions of the data set")
    seed: int = Field(0, ge=0, description="seed of the roll calls")


def roll_call(p: RollCallParameters) -> Task:
    """Draw the training and evaluation problems.

    Raises:
        InputError: a size that is trained on and called unseen, or more problems than there are.
    """
    if p.known == p.unseen_known and (overlap := sorted(set(p.train_sizes) & set(p.unseen_sizes))):
        raise InputError(f"task.unseen_sizes={p.unseen_sizes}: {overlap[0]} is a training size as well")
    supply = Supply(NAMES[: p.people], p.known, tuple(p.forms), p.worked)
    other = replace(supply, known=p.unseen_known)
    evaluations = {"seen_sizes": draw_problems(p.train_sizes, p.eval_per_size, p.eval_split, supply, p.seed)}
    if p.unseen_sizes:
        evaluations["unseen_sizes"] = draw_problems(p.unseen_sizes, p.eval_per_size, p.eval_split, other, p.seed)
    train = draw_problems(p.train_sizes, p.train_per_size, "train", supply, p.seed)
    return p.task(train, evaluations, "knights_and_knaves", style_figures)


register("roll_call", RollCallParameters, roll_call)
