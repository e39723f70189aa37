"""Trunk and branches on two threads: one call of the plugin, and a thread that serves branches."""

from __future__ import annotations

import ctypes
import enum
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import tvm_ffi

from layoutsel.device.entry_points import EntryPoint
from layoutsel.device.own_threads import FORK_WAITS_S
from layoutsel.device.serving_thread import ServingThread
from layoutsel.device.signature import Signature
from layoutsel.device.stage_caller import StageCaller
from layoutsel.device.tensors import empty_tensor
from layoutsel.device.turns import Turn, came_through_fork
from layoutsel.errors import LayoutselError, RunTimeout
from layoutsel.exits.exit_chain import ChainAnswer, ExitChain, ExitOutcome, values_like
from layoutsel.exits.lanes import Lane, Lanes
from layoutsel.exits.scores import RESULTS
from layoutsel.exits.verdict import AnswerRule
from tvm_passes.onednn.plugin import function


class _End(enum.IntEnum):
    """``RequestEnd`` of ``cmake/onednn/exit_request.h``."""

    NOT_TAKEN = 0
    ANSWERED = 1
    DECLINED = 2
    CLOSED = 3
    OVERDUE = 4
    FAILED = 5
    BUSY = 6


class LaneCounts(NamedTuple):
    """Work of the last request."""

    trunk: int
    """Number of sub-graphs that the trunk's lane began."""
    trunk_of: int
    """Number of sub-graphs of a whole lane of the trunk."""
    branches: int
    """Number of sub-graphs that the branches' lane began."""
    branches_of: int
    """Number of sub-graphs of a whole lane of the branches."""
    trunk_after_ns: int
    """Time from the answer until the trunk had stopped, nanoseconds; negative if it had before."""
    branches_after_ns: int
    """Time from the answer until the branches had stopped, nanoseconds."""


def can_pair(lanes: Lanes) -> bool:
    """True if all results of each exit are at hand on the lane that completes it.

    The trunk's lane has to be one of :func:`layoutsel.exits.trunk_here.runs_here`.
    """
    return len(lanes.lanes) == 2 and all(
        {*lanes.results[exit_]} <= {s for step in lane.steps for s in (*step.reads, *step.writes)}
        for lane in lanes.lanes
        for step in lane.steps
        for exit_ in step.exits
    )


class LaneChain:
    """Answers requests with the trunk on the calling thread and the branches on another one.

    One request at a time. The thread of the branches starts with the first one, and waits for the
    next request without using its core.

    Parameters
    ----------
    lanes
        Stages of the trunk's worker, and of the branches' worker.
    trunk, branches
        Runners of the stages of either lane.
    cores
        Cores of either lane.
    limit_s
        Time limit of the branches, seconds.
    sequence
        Answers requests on the calling thread while other work has the core of the branches and
        their thread has not ended the last request; None to wait for it.
    """

    def __init__(
        self,
        lanes: Lanes,
        trunk: StageCaller,
        branches: StageCaller,
        cores: tuple[Sequence[int], Sequence[int]],
        limit_s: float,
        sequence: ExitChain | None = None,
    ) -> None:
        self.places = lanes.inputs
        """Numbers of the inputs that it takes, in order."""
        self.failure: BaseException | None = None
        """Reason why the branches answer no further requests."""
        entries = [entry for lane in lanes.lanes for entry in _entries(lane)]
        known = {one.name: one for entry in entries for one in (*entry.inputs, *entry.outputs)}
        self._values = {e: values_like(known[f"output.{RESULTS * e}"]) for e in lanes.exits}
        self._outcome = ExitOutcome()
        self._threads, self._cores, self._limit_s = branches.threads, cores[1], limit_s
        self._serving: ServingThread | None = None
        self._is_declined = False
        self._sequence = sequence
        self._is_beside = True
        first, second = lanes.lanes
        sources = _sources(second)
        functions = function("layoutsel.exit_lanes")(
            self._lane(lanes, first, trunk, {n: n for n in range(lanes.tensors)}),
            self._lane(lanes, second, branches, _numbered(second, sources)),
            tvm_ffi.Shape(lanes.exits),
            tvm_ffi.Shape([lanes.ends[e] for e in lanes.exits]),
            tvm_ffi.Shape(sources),
            [_buffer(known[f"input.{number}"]) for number in lanes.inputs],
            tvm_ffi.Shape(tuple(cores[0])),
            limit_s,
            sequence is not None,
            ctypes.addressof(self._outcome),
        )
        self._answer, self._serve, self._close, self._await_idle, self._error, self._counts = (
            functions
        )
        self._turn = _IdleTurn(self._is_idle)
        # The thread holds no reference to this object: a forgotten one ends its thread.
        weakref.finalize(self, self._close).atexit = False

    def answer(self, rule: AnswerRule, inputs: Sequence[Any]) -> ChainAnswer | None:
        """Answer a request; None if another way has to, as after a :attr:`failure`.

        Parameters
        ----------
        rule
            Rule with thresholds alone: its levels are not None.
        inputs
            Arrays for the inputs :attr:`places`, in order.
        """
        assert rule.levels is not None
        if self._is_declined or self.failure is not None or self._is_forked():
            return None
        with self._turn:
            if self._serving is None:
                self._serving = self._start()
                if self._sequence is not None:  # its first request makes its primitives
                    self._sequence.answer(rule, inputs)
            levels, is_ordered = ctypes.addressof(rule.levels), rule.answer == "ordered"
            try:
                end = self._answer(levels, is_ordered, *inputs)
            except BufferError:  # numpy exports no read-only arrays
                return None
            self._is_beside = end != _End.BUSY
            if end == _End.BUSY:
                assert self._sequence is not None
                return self._sequence.answer(rule, inputs)
            if end == _End.ANSWERED:
                found = self._outcome
                return found.answer(self._values[found.exit].copy())
            self._note(end)
            return None

    def counts(self) -> LaneCounts | None:
        """Count the work of the last request, after its end; None if it was one in sequence."""
        with self._turn:
            self._await_idle(self._limit_s)
            return LaneCounts(*map(int, self._counts())) if self._is_beside else None

    def close(self) -> None:
        """End the active request without an answer, and the thread of the branches."""
        self._close()
        if self._serving is not None:
            is_stuck = isinstance(self.failure, RunTimeout)
            self._serving.stop(limit_s=0.0 if is_stuck else None)

    def _note(self, end: int) -> None:
        """Remember why a request was not answered."""
        if end == _End.DECLINED:
            self._is_declined = True
            self.close()
        elif end == _End.OVERDUE:
            self.failure = RunTimeout(
                f"the branches ran longer than {self._limit_s:g} s, the limit of a request"
            )
        elif end == _End.FAILED:
            self.failure = LayoutselError(f"a branch failed: {self._error()}")

    def _is_forked(self) -> bool:
        """True in a forked process, which does not have the thread of the branches."""
        return came_through_fork() or (self._serving is not None and not self._serving.is_here)

    def _start(self) -> ServingThread:
        return ServingThread(
            self._serve,
            self._close,
            threads=self._threads,
            cores=self._cores,
            limit_s=self._limit_s,
        )

    def _is_idle(self, limit_s: float) -> bool:
        """Wait for the thread of the branches; True if it does no work."""
        is_alive = self._serving is not None and self._serving.is_alive
        return not is_alive or bool(self._await_idle(limit_s))

    def _lane(
        self, lanes: Lanes, lane: Lane, caller: StageCaller, numbers: Mapping[int, int]
    ) -> list[Any]:
        """Lane of ``cmake/onednn/exit_lanes.h``, with its own numbers of tensors."""

        def renamed(slots: Sequence[int]) -> tvm_ffi.Shape:
            return tvm_ffi.Shape(tuple(numbers[slot] for slot in slots))

        trunk = {s: n for n, step in enumerate(lanes.lanes[0].steps, 1) for s in step.signals}
        needs = [max((trunk[signal] for signal in step.awaits), default=0) for step in lane.steps]
        tests = [
            [
                number
                for e in step.exits
                for number in (e, *renamed(lanes.results[e]), self._values[e].ctypes.data)
            ]
            for step in lane.steps
        ]
        return [
            *caller.chain_parts(_entries(lane)),
            *([renamed(slots) for slots in part] for part in zip(*_slots(lane), strict=True)),
            len(numbers),
            [tvm_ffi.Shape(tuple(one)) for one in tests],
            tvm_ffi.Shape(tuple(step.number for step in lane.steps)),
            tvm_ffi.Shape(tuple(accumulate(needs, max))),
        ]


class _IdleTurn(Turn):
    """Lock of one request; a fork also waits for the thread of the branches.

    Parameters
    ----------
    is_idle
        Function that waits for that thread, at most some seconds.
    """

    def __init__(self, is_idle: Callable[[float], bool]) -> None:
        super().__init__("ran the branches", FORK_WAITS_S)
        self._is_idle = weakref.WeakMethod(is_idle)

    def wait(self, since_s: float) -> bool:
        """Take the lock, as :meth:`Turn.wait` does, once the thread is idle as well."""
        if not super().wait(since_s):
            return False
        is_idle = self._is_idle()
        left_s = since_s + self.fork_waits_s - time.monotonic()
        if is_idle is None or is_idle(max(0.0, left_s)):
            return True
        self.go_on()
        return False


def _entries(lane: Lane) -> list[EntryPoint]:
    return [entry for step in lane.steps for entry in step.chain.entries]


def _slots(lane: Lane) -> list[tuple[Sequence[int], Sequence[int], Sequence[int]]]:
    return [(step.reads, step.writes, step.frees) for step in lane.steps]


def _sources(lane: Lane) -> tuple[int, ...]:
    """Tensors that a lane reads and does not compute, in order of first use."""
    made = {slot for step in lane.steps for slot in step.writes}
    read = dict.fromkeys(slot for step in lane.steps for slot in step.reads)
    return tuple(slot for slot in read if slot not in made)


def _numbered(lane: Lane, sources: Sequence[int]) -> dict[int, int]:
    """Numbers of a lane's tensors, those that it does not compute first."""
    made = (slot for step in lane.steps for slot in step.writes)
    return {slot: number for number, slot in enumerate(dict.fromkeys((*sources, *made)))}


def _buffer(one: Signature) -> tvm_ffi.Tensor:
    return empty_tensor(one.shape, one.dtype)
