"""Runs of requests: on the calling thread, or on one worker for each lane."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, wait
from functools import partial
from typing import Any, Protocol

from layoutsel.device.stage_caller import StageCaller
from layoutsel.device.stage_worker import TensorWorker
from layoutsel.device.worker_machines import Machines
from layoutsel.errors import Cancelled, RunTimeout, WorkerClosed
from layoutsel.exits.lanes import Lanes
from layoutsel.exits.request import ExitRequest, Tensor
from layoutsel.exits.verdict import AnswerRule


class Runner(Protocol):
    """Runs requests, one at a time."""

    lanes: Lanes
    """Stages by worker."""
    failure: BaseException | None
    """Reason why it cannot run further requests."""

    def run(self, rule: AnswerRule, inputs: Sequence[Tensor], *, is_traced: bool) -> ExitRequest:
        """Run a request until its answer; with `is_traced`, until the end of all that it began."""

    def close(self) -> None:
        """Fail the active request, and end the threads."""


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

    def run(self, rule: AnswerRule, inputs: Sequence[Tensor], *, is_traced: bool) -> ExitRequest:
        """Run a request; errors of its stages are raised."""
        request = ExitRequest(self.lanes, rule, inputs, is_traced=is_traced)
        self._caller.run(request.run, 0, self._functions)
        return request

    def close(self) -> None:
        """Nothing to end: an active request of another thread continues."""


class RunOnWorkers:
    """Runs each lane on a worker of its own.

    Parameters
    ----------
    lanes
        Stages by worker.
    workers
        A worker for each lane.
    limit_s
        Time limit of a lane, seconds; that of the workers.
    """

    def __init__(self, lanes: Lanes, workers: Sequence[TensorWorker], limit_s: float) -> None:
        self.lanes = lanes
        self.failure: BaseException | None = None
        self._workers, self._limit_s = workers, limit_s
        self._active: ExitRequest | None = None

    def run(self, rule: AnswerRule, inputs: Sequence[Tensor], *, is_traced: bool) -> ExitRequest:
        """Run a request; errors of its stages, or of an earlier one's, become :attr:`failure`."""
        request = ExitRequest(
            self.lanes, rule, inputs, limit_s=self._limit_s, is_watched=True, is_traced=is_traced
        )
        self._active = request
        futures = []
        for number, worker in enumerate(self._workers):
            work, token = partial(self._run_lane, request, number), request.tokens[number]
            try:
                future = worker.submit(self.lanes.lanes[number].worker, work, token)
            except (RunTimeout, WorkerClosed) as error:
                self._lost(request, error)
                break
            future.add_done_callback(partial(self._ended, request))
            futures.append(future)
        request.wait(2 * self._limit_s)  # the workers give up after the limit itself
        if is_traced:
            wait(futures, 2 * self._limit_s)
        self._active = None
        self.failure = self.failure or request.error
        return request

    def close(self) -> None:
        """Fail the active request, and end the threads."""
        if (request := self._active) is not None:
            request.fail(WorkerClosed("the multi-exit network was closed during a request"))
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
        self.failure = self.failure or error
        request.fail(error)
