"""State of one request to a multi-exit network, which the lanes of its workers share."""

from __future__ import annotations

import ctypes
import math
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import tvm_ffi

from layoutsel.device.cancellation import CancelToken
from layoutsel.errors import DeadlineMissed, RunTimeout
from layoutsel.exits.lanes import Lanes, LaneStep
from layoutsel.exits.signals import give, unset_signal
from layoutsel.exits.stage_runs import StageRun
from layoutsel.exits.verdict import AnswerRule, Verdict

Tensor: TypeAlias = tvm_ffi.Tensor
StageFunction: TypeAlias = Callable[..., list[Tensor]]
"""Function of a stage on the virtual machine of one thread."""


class ExitRequest:
    """Tensors, results and end of one request.

    Every request is an object of its own: results that arrive late go to the request that they
    belong to, and to no other.

    Parameters
    ----------
    lanes
        Stages by worker.
    rule
        Conditions under which an exit answers.
    inputs
        Inputs of the model.
    limit_s
        Longest wait of a lane for a tensor of another one, seconds.
    deadline_s
        Time of the performance counter at which the best result so far answers, seconds.
    is_watched
        True to cancel lanes in the middle of a stage; False for a single lane.
    is_traced
        True to keep the runs of stages.
    """

    def __init__(
        self,
        lanes: Lanes,
        rule: AnswerRule,
        inputs: Sequence[Tensor],
        *,
        limit_s: float = math.inf,
        deadline_s: float = math.inf,
        is_watched: bool = False,
        is_traced: bool = False,
    ) -> None:
        self.lanes = lanes
        """Stages by worker."""
        self.is_here = False
        """True if the calling thread runs the lane of the trunk."""
        self.inputs = inputs
        """Inputs of the model."""
        self.tokens = [CancelToken() for _ in lanes.lanes] if is_watched else []
        """Token of each lane."""
        self.verdict = Verdict(rule, lanes.exits)
        """Results so far."""
        self.is_early = False
        """True if the answer came before the end of the trunk."""
        self.error: BaseException | None = None
        """Reason for a request without an answer."""
        self.ended_s = math.nan
        """Time of the answer or error by the performance counter, seconds."""
        self.timeline: list[StageRun] | None = [] if is_traced else None
        """Runs of stages."""
        self.start_s = time.perf_counter()
        """Time from which :attr:`timeline` counts, by the performance counter, seconds."""
        self._limit_s, self._deadline_s = limit_s, deadline_s
        self._values: list[Tensor | None] = [inputs[place] for place in lanes.inputs]
        self._values += [None] * (lanes.tensors - len(lanes.inputs))
        self._last_useful = max(lanes.ends.values())
        self._begun = [-1] * len(lanes.lanes)
        self._signals = [unset_signal() for _ in lanes.waits]
        self._turn = threading.Lock()
        self._done = unset_signal()
        self._before_signals: Callable[[], None] | None = None

    def trunk_here(self, before_signals: Callable[[], None] | None) -> None:
        """Let the calling thread run the lane of the trunk.

        Parameters
        ----------
        before_signals
            Called before the trunk's first signal to another lane.
        """
        self.is_here, self._before_signals = True, before_signals

    def run(self, lane: int, functions: Sequence[StageFunction]) -> None:
        """Run a lane until its end, or until the request needs none of its other stages.

        Parameters
        ----------
        lane
            Number of the lane.
        functions
            Functions of its stages.

        Raises
        ------
        Cancelled
            If the lane's token stops it within a stage.
        RunTimeout
            If it waits too long for another lane.
        """
        values = self._values
        for step, function in zip(self.lanes.lanes[lane].steps, functions, strict=True):
            for signal in step.awaits:
                self._await(signal, step)
            # Written before the comparison: one who changes the bound later sees that it has begun.
            self._begun[lane] = step.number
            if step.number > self._last_useful:
                return
            if time.perf_counter() >= self._deadline_s:
                self._expire()
                return
            if self.timeline is not None:
                function = partial(self._timed, lane, step, function)  # noqa: PLW2901
            made = function(*[values[slot] for slot in step.reads])
            for slot, value in zip(step.writes, made, strict=True):
                values[slot] = value
            if step.signals and self._before_signals is not None:
                begin_others, self._before_signals = self._before_signals, None
                begin_others()
            for signal in step.signals:
                give(self._signals[signal])
            for exit_ in step.exits:
                self._arrive(exit_)
            for slot in step.frees:
                values[slot] = None

    def wait(self, limit_s: float) -> None:
        """Wait for the answer or an error until the deadline, at most `limit_s` seconds."""
        left_s = max(0.0, self._deadline_s - time.perf_counter())
        if self._done.acquire(timeout=min(limit_s, left_s)):
            return
        if left_s <= limit_s:
            self._expire()
        else:
            self.fail(RunTimeout(f"a request had no answer after {limit_s:g} s"))

    def fail(self, error: BaseException) -> None:
        """End the request with an error, unless it has ended."""
        with self._turn:
            if self.verdict.answer is None and self.error is None:
                self.error = error
                self._end()

    def result(self, exit_: int) -> tuple[Tensor, float, int]:
        """Values of the classes, score and predicted class of an exit that has arrived."""
        values, score, label = (self._values[slot] for slot in self.lanes.results[exit_])
        assert values is not None
        assert score is not None
        assert label is not None
        return (
            values,
            ctypes.c_float.from_address(score.data_ptr()).value,
            ctypes.c_int64.from_address(label.data_ptr()).value,
        )

    def _timed(
        self, lane: int, step: LaneStep, function: StageFunction, *inputs: Tensor | None
    ) -> list[Tensor]:
        assert self.timeline is not None
        start_s = time.perf_counter()
        complete = False
        try:
            made = function(*inputs)
            complete = True
            return made
        finally:
            end_s = time.perf_counter()
            self.timeline.append(
                StageRun(
                    name=step.chain.name,
                    worker=self.lanes.lanes[lane].worker,
                    start_us=1e6 * (start_s - self.start_s),
                    end_us=1e6 * (end_s - self.start_s),
                    complete=complete,
                )
            )

    def _arrive(self, exit_: int) -> None:
        _, score, label = self.result(exit_)
        with self._turn:
            if self.verdict.answer is not None or self.error is not None:
                return
            self.verdict.arrive(exit_, score, label)
            if self.verdict.answer is not None:
                self.is_early = not self.verdict.is_complete
                self._end()
            else:
                deepest = self.verdict.bound
                self._stop_after(max(n for e, n in self.lanes.ends.items() if e <= deepest))

    def _expire(self) -> None:
        """Answer with the best result so far, or end with an error if there is none."""
        with self._turn:
            if self.verdict.answer is not None or self.error is not None:
                return
            if self.verdict.settle():
                self.is_early = not self.verdict.is_complete
            else:
                self.error = DeadlineMissed("a request had no result of any exit at its deadline")
            self._end()

    def _end(self) -> None:
        self._stop_after(-1)
        self.ended_s = time.perf_counter()
        self._done.release()

    def _stop_after(self, number: int) -> None:
        """Stop all stages after one in the model's order: running, waiting and future ones."""
        if number >= self._last_useful:
            return
        self._last_useful = number
        for begun, token in zip(self._begun, self.tokens, strict=False):
            if begun > number:
                token.cancel()
        for signal, waiting in zip(self._signals, self.lanes.waits, strict=True):
            if waiting > number:
                give(signal)

    def _await(self, signal: int, step: LaneStep) -> None:
        if not self._signals[signal].acquire(timeout=self._limit_s):
            raise RunTimeout(
                f"stage {step.chain.name!r} waited longer than {self._limit_s:g} s for a tensor "
                "of another worker"
            )
