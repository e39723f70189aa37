"""Objectives: the quantities that plans are chosen by, one file per entry of the table."""

from layoutsel.planning.objectives.base import Answer, Assessed, Objective, Solver
from layoutsel.planning.objectives.table import decide, objective_of, objectives, register, state

__all__ = [
    "Answer",
    "Assessed",
    "Objective",
    "Solver",
    "decide",
    "objective_of",
    "objectives",
    "register",
    "state",
]
