"""Runs of requests: on the calling thread, or on one worker for each lane."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future, wait
from functools import partial
from typing import Any, Protocol

from layoutsel.device.stage_caller import StageCaller
from layoutsel.device.stage_worker import TensorWorker
from layoutsel.device.worker_jobs import StageFuture
from layoutsel.device.worker_machines import Machines
from layoutsel.errors import Cancelled, DeadlineMissed, RunTimeout, WorkerClosed
from layoutsel.exits.exit_chain import ExitChain, can_chain
from layoutsel.exits.lane_chain import LaneChain
from layoutsel.exits.lanes import Lanes
from layoutsel.exits.request import ExitRequest, Tensor
from layoutsel.exits.trunk_here import TrunkHere
from layoutsel.exits.verdict import AnswerRule


class Runner(Protocol):
    """Runs requests in two steps, so that the next one can begin before the last one has ended."""

    lanes: Lanes
    """Stages by worker."""

    @property
    def chain(self) -> ExitChain | LaneChain | None:
        """Answers requests that need no deadline, no trace and no patience."""

    @property
    def failure(self) -> BaseException | None:
        """Reason why it cannot run further requests."""

    def begin(
        self, rule: AnswerRule, inputs: Sequence[Tensor], *, deadline_s: float, is_traced: bool
    ) -> ExitRequest:
        """Make a request and queue its stages. One thread at a time calls this."""

    def finish(self, request: ExitRequest) -> None:
        """Wait for the answer; for that of a traced request, until all that it began has ended."""

    def close(self) -> None:
        """Fail the active requests, and end the threads."""


class RunHere:
    """Runs a single lane on the calling thread.

    Parameters
    ----------
    lanes
        Stages of one worker.
    caller
        Runs the stages.
    """

    def __init__(self, lanes: Lanes, caller: StageCaller) -> None:
        self.lanes = lanes
        self.failure: BaseException | None = None
        self._caller = caller
        (lane,) = lanes.lanes
        self._functions = [caller.function(step.chain) for step in lane.steps]
        can = can_chain(lanes) and not caller.uses_devices
        self.chain = ExitChain(lanes, caller) if can else None
        """Answers requests that need no deadline, no trace and no patience."""

    def begin(
        self, rule: AnswerRule, inputs: Sequence[Tensor], *, deadline_s: float, is_traced: bool
    ) -> ExitRequest:
        """Make a request, which runs while its caller waits for it."""
        return ExitRequest(self.lanes, rule, inputs, deadline_s=deadline_s, is_traced=is_traced)

    def finish(self, request: ExitRequest) -> None:
        """Run a request after those of other threads; errors of its stages are raised."""
        self._caller.run(request.run, 0, self._functions)

    def close(self) -> None:
        """Nothing to end: active requests of other threads continue."""


class RunOnWorkers:
    """Runs each lane on a worker of its own, or that of the trunk on the calling thread.

    Parameters
    ----------
    lanes
        Stages by worker.
    workers
        A worker for each lane.
    limit_s
        Time limit of a lane, seconds; that of the workers.
    trunk
        Runs the trunk of requests without a deadline on the calling thread; None for its worker.
    chain
        Answers requests that need no deadline, no trace and no patience, on threads of its own.
    """

    def __init__(
        self,
        lanes: Lanes,
        workers: Sequence[TensorWorker],
        limit_s: float,
        trunk: TrunkHere | None = None,
        chain: LaneChain | None = None,
    ) -> None:
        self.lanes = lanes
        self.chain = chain
        """Answers requests that need no deadline, no trace and no patience."""
        self._failure: BaseException | None = None
        self._workers, self._limit_s, self._trunk = workers, limit_s, trunk
        # A worker that would wait for the trunk is woken once, when it need not wait.
        self._waits = bool(lanes.lanes[1].steps[0].awaits)
        self._active: dict[ExitRequest, list[StageFuture]] = {}

    @property
    def failure(self) -> BaseException | None:
        """Reason why it cannot run further requests."""
        return self._failure or (self.chain.failure if self.chain is not None else None)

    def begin(
        self, rule: AnswerRule, inputs: Sequence[Tensor], *, deadline_s: float, is_traced: bool
    ) -> ExitRequest:
        """Queue a request on all workers, after the same other requests on each of them."""
        request = ExitRequest(
            self.lanes,
            rule,
            inputs,
            limit_s=self._limit_s,
            deadline_s=deadline_s,
            is_watched=True,
            is_traced=is_traced,
        )
        self._active[request] = []
        # At a deadline, the calling thread has to be free to answer with the best result so far.
        if self._trunk is None or deadline_s < math.inf:
            self._queue(request, range(len(self._workers)))
        elif self._waits:
            request.trunk_here(partial(self._queue, request, (1,)))
        else:
            request.trunk_here(None)
            self._queue(request, (1,))
        return request

    def _queue(self, request: ExitRequest, lanes: Sequence[int]) -> None:
        """Queue lanes of a request on their workers."""
        for number in lanes:
            worker = self._workers[number]
            work, token = partial(self._run_lane, request, number), request.tokens[number]
            try:
                future = worker.submit(self.lanes.lanes[number].worker, work, token)
            except (RunTimeout, WorkerClosed) as error:
                self._lost(request, error)
                break
            future.add_done_callback(partial(self._ended, request))
            self._active[request].append(future)

    def finish(self, request: ExitRequest) -> None:
        """Wait for the answer; errors of the stages become :attr:`failure`."""
        # The workers give up after the limit itself; requests in front have limits of their own.
        limit_s = 2 * self._limit_s * len(self._active)
        try:
            if request.is_here and self._trunk is not None:
                self._trunk.run(request)
            request.wait(limit_s)
        except BaseException as error:
            request.fail(error)  # which stops the branches
            raise
        finally:
            futures = self._active.pop(request)
        if request.timeline is not None:
            wait(futures, limit_s)
        if not isinstance(request.error, DeadlineMissed):
            self._failure = self._failure or request.error

    def close(self) -> None:
        """Fail the active requests, and end the threads."""
        for request in list(self._active):
            request.fail(WorkerClosed("the multi-exit network was closed during a request"))
        if self.chain is not None:
            self.chain.close()
        for worker in self._workers:
            worker.close(cancel=True)

    def _run_lane(self, request: ExitRequest, number: int, machines: Machines) -> None:
        steps = self.lanes.lanes[number].steps
        functions = [machines.function(step.chain, is_watched=True) for step in steps]
        try:
            with machines.watching(request.tokens[number]):
                request.run(number, functions)
        except Cancelled:
            pass  # the request has ended, or the worker's time limit has failed its future

    def _ended(self, request: ExitRequest, future: Future[Any]) -> None:
        if (error := future.exception()) is not None:
            self._lost(request, error)

    def _lost(self, request: ExitRequest, error: BaseException) -> None:
        self._failure = self._failure or error
        request.fail(error)
