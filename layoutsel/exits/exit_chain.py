"""Stages of one worker until an exit is sure, as one call of the plugin."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tvm_ffi

from layoutsel.device.signature import Signature
from layoutsel.device.stage_caller import StageCaller
from layoutsel.device.tensors import empty_tensor
from layoutsel.device.threads import shares_openmp
from layoutsel.device.turns import came_through_fork
from layoutsel.exits.lanes import Lanes
from layoutsel.exits.scores import RESULTS
from layoutsel.exits.verdict import AnswerRule
from layoutsel.runtime.arrays import dtype_of
from tvm_passes.onednn.plugin import function


class ChainAnswer(NamedTuple):
    """Answer of the first sure exit."""

    exit: int
    """Number of the exit."""
    label: int
    """Predicted class."""
    score: float
    """Score of the exit."""
    has_nan: bool
    """True if the score of this exit or an earlier one was not a number."""
    is_early: bool
    """True if the last exit had no result yet."""
    values: np.ndarray
    """Values of the classes, (1, classes)."""


class ExitOutcome(ctypes.Structure):
    """``ExitOutcome`` of ``cmake/onednn/exit_tests.h``."""

    _fields_ = (
        ("exit", ctypes.c_int64),
        ("label", ctypes.c_int64),
        ("score", ctypes.c_double),
        ("has_nan", ctypes.c_int64),
        ("is_early", ctypes.c_int64),
    )

    def answer(self, values: np.ndarray) -> ChainAnswer:
        """Make the answer with the values of the classes."""
        return ChainAnswer(
            self.exit, self.label, self.score, bool(self.has_nan), bool(self.is_early), values
        )


def can_chain(lanes: Lanes) -> bool:
    """True if the plugin is at hand, and a single lane completes the exits in their order."""
    (lane,) = lanes.lanes
    order = tuple(exit_ for step in lane.steps for exit_ in step.exits)
    return shares_openmp() and order == lanes.exits and bool(lane.steps[-1].exits)


class ExitChain:
    """Answers requests on a single lane, each in one call of the plugin, one at a time.

    Parameters
    ----------
    lanes
        Stages of one worker.
    caller
        Runs the stages.
    """

    def __init__(self, lanes: Lanes, caller: StageCaller) -> None:
        (lane,) = lanes.lanes
        entries = [entry for step in lane.steps for entry in step.chain.entries]
        known = {one.name: one for entry in entries for one in (*entry.inputs, *entry.outputs)}
        self._values = {e: values_like(known[f"output.{RESULTS * e}"]) for e in lanes.exits}
        tests = [
            [n for e in step.exits for n in (e, *lanes.results[e], self._values[e].ctypes.data)]
            for step in lane.steps
        ]
        slots = ([step.reads, step.writes, step.frees] for step in lane.steps)
        inputs = [known[f"input.{number}"] for number in lanes.inputs]
        self._outcome = ExitOutcome()
        self._turn = caller.turn
        self._run = function("layoutsel.exit_chain")(
            *caller.chain_parts(entries),
            *([tvm_ffi.Shape(one) for one in part] for part in zip(*slots, strict=True)),
            lanes.tensors,
            [tvm_ffi.Shape(tuple(one)) for one in tests],
            [empty_tensor(one.shape, one.dtype) for one in inputs],
            caller.threads,
            ctypes.addressof(self._outcome),
        )
        self.places = lanes.inputs
        """Numbers of the inputs that it takes, in order."""

    def answer(self, rule: AnswerRule, inputs: Sequence[Any]) -> ChainAnswer | None:
        """Answer a request; None if it has to be checked or converted first.

        Parameters
        ----------
        rule
            Rule with thresholds alone: its levels are not None.
        inputs
            Arrays for the inputs :attr:`places`, in order.
        """
        assert rule.levels is not None
        if came_through_fork():
            return None
        with self._turn:
            try:
                if not self._run(ctypes.addressof(rule.levels), *inputs):
                    return None
            except BufferError:  # numpy exports no read-only arrays
                return None
            found = self._outcome
            values = self._values[found.exit].copy()
            return found.answer(values)


def values_like(values: Signature) -> np.ndarray:
    """Make an array for the values of an exit's classes."""
    return np.empty(values.shape, dtype_of(values.dtype))
