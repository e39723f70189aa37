"""Objectives: quantities to choose plans by; one file per entry of the table."""

from layoutsel.planning.objectives.base import Answer, Assessed, Objective, Solver, time_of_runs
from layoutsel.planning.objectives.table import (
    OBJECTIVES,
    answer,
    decide,
    objective_of,
    objectives,
    register,
    state,
    timed,
    unlimited,
)

__all__ = [
    "OBJECTIVES",
    "Answer",
    "Assessed",
    "Objective",
    "Solver",
    "answer",
    "decide",
    "objective_of",
    "objectives",
    "register",
    "state",
    "time_of_runs",
    "timed",
    "unlimited",
]
