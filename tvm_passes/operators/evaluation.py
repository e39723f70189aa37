"""Evaluation of operators of constants in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tvm_passes.deferred import Deferred
from tvm_passes.operators.entry import Evaluator

if TYPE_CHECKING:
    import numpy as np


def by_elements(function: Callable[..., np.ndarray]) -> Evaluator:
    """Make the evaluator of an operator from a numpy function of the same operands."""
    return lambda _call, arrays: function(*arrays)


def evaluator(name: str) -> Evaluator:
    """Refer to an evaluator of :mod:`tvm_passes.normalize.evaluators`; it also reads attributes."""
    return Deferred(f"tvm_passes.normalize.evaluators:{name}")
