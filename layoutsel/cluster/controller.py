"""The controller on the origin node: takes requests through their segments, around lost nodes."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from layoutsel.cluster.attempt import Attempt, ClusterRequest, SegmentTask
from layoutsel.cluster.distribution import Distribution, Route, Segment
from layoutsel.cluster.engine import ClusterEngine, NodeLost, RunTimes, Tensors
from layoutsel.cluster.event_loop import EventLoop
from layoutsel.cluster.events import (
    ClusterEvent,
    Observer,
    RequestAnswered,
    SegmentRan,
    TensorsSent,
)
from layoutsel.cluster.health import Health, Revive
from layoutsel.cluster.node_queues import ClusterLimits, NodeQueues, Reactions
from layoutsel.cluster.routing import Epoch, nodes_of
from layoutsel.errors import RunTimeout, WorkerClosed
from tvm_passes.errors import LayoutselError

logger = logging.getLogger(__name__)

_OUTPUT = "output."
"""Start of the names of the model's outputs."""


class Controller:
    """Answers requests with the segments of a distribution.

    Computation is repeated after a fault; an answer is given once. All state belongs to the thread
    of the event loop.

    Parameters
    ----------
    engine
        ClusterEngine with all artifacts loaded.
    distribution
        Distribution of the first epoch.
    origin
        Node that holds the inputs and takes the results.
    limits
        ClusterLimits.
    fallback
        Computes a request on the origin node if no route is left.
    revive
        Checks a node within a limit, and loads its artifact again if it is lost; raises on failure.
    expected_us
        Observed time of a segment, microseconds; None if unknown.
    observers
        Functions that are told of all events.
    """

    def __init__(
        self,
        engine: ClusterEngine,
        distribution: Distribution,
        origin: str,
        *,
        limits: ClusterLimits | None = None,
        fallback: Callable[[Tensors], Tensors] | None = None,
        revive: Revive = lambda _node, _limit_s: None,
        expected_us: Callable[[Segment], float | None] = lambda _segment: None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.limits = limits or ClusterLimits()
        self.counts: Counter[str] = Counter()
        """Numbers of answers, failures, replays, late results, misses, faults and fallbacks."""
        self.epoch = Epoch(0, distribution)
        """Current epoch."""
        self._engine, self._origin = engine, origin
        self._fallback, self._observers = fallback, tuple(observers)
        self._numbers = itertools.count()
        self._requests: dict[int, ClusterRequest] = {}
        self._places = threading.BoundedSemaphore(self.limits.in_flight)
        self._stranded: list[ClusterRequest] = []
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="layoutsel-fallback")
        self._loop = EventLoop("layoutsel-controller", self._fail_all)
        self._health = Health(self._loop, revive, self._returned)
        reactions = Reactions(ended=self._ran, late=self._came_late, missed=self._missed)
        self._queues = NodeQueues(engine, self._loop, self.limits, expected_us, reactions)

    def submit(self, inputs: Tensors, route: Route | None = None) -> Future[Tensors]:
        """Take a request; waits while :attr:`ClusterLimits.in_flight` others are in progress.

        Parameters
        ----------
        inputs
            Inputs of the model, by name.
        route
            Route of the first attempt; chosen by weight if None.

        Raises
        ------
        RunTimeout
            If there is no place within twice the time limit of a request.
        WorkerClosed
            If the controller is closed.
        """
        tensors = self._engine.put(inputs)
        # Requests in progress end within their own limit.
        if not self._places.acquire(timeout=2 * self.limits.request_s):
            raise RunTimeout(
                f"{self.limits.in_flight} requests are in progress, and none ended within "
                f"{2 * self.limits.request_s:g} s"
            )
        request = ClusterRequest(
            number=next(self._numbers), inputs=inputs, tensors=tensors, start_s=time.monotonic()
        )
        request.future.set_running_or_notify_cancel()
        # The end of the loop fails all requests that are here by then.
        self._requests[request.number] = request
        if self._loop.is_closed:
            self._end(request)
            raise WorkerClosed("the distribution is closed: deploy it again")
        self._loop.put(partial(self._accept, request, route))
        return request.future

    def switch(self, distribution: Distribution) -> int:
        """Send new requests through another distribution; returns the number of its epoch.

        Requests in progress end on their own routes: none waits or is lost.
        """
        epoch = Epoch(self.epoch.number + 1, distribution)
        self._loop.call(partial(setattr, self, "epoch", epoch))
        return epoch.number

    @property
    def quarantined(self) -> frozenset[str]:
        """Nodes that get no work at the moment."""
        return self._health.lost

    def exclude(self, nodes: Iterable[str], why: str) -> None:
        """Put nodes into quarantine."""
        self._loop.call(partial(self._lose, frozenset(nodes), why))

    def close(self) -> None:
        """Fail the requests in progress and end the threads."""
        self._loop.close()
        self._health.close()
        self._helper.shutdown(wait=False, cancel_futures=True)

    def _tell(self, event: ClusterEvent) -> None:
        for observer in self._observers:
            observer(event)

    def _accept(self, request: ClusterRequest, route: Route | None) -> None:
        overdue = partial(self._overdue, request.number)  # a timer must not keep the inputs
        self._loop.at(request.start_s + self.limits.request_s, overdue)
        self._try(request, route)

    def _try(self, request: ClusterRequest, route: Route | None = None) -> None:
        """Begin the next attempt at a request."""
        request.attempts += 1
        route = route or self.epoch.route(self._health.lost)
        if request.attempts > self.limits.attempts:
            self._fail(request, LayoutselError(self._given_up(request)))
        elif route is not None:
            attempt = Attempt(
                request=request,
                epoch=self.epoch,
                route=route,
                tensors=dict(request.tensors),
                waiting=list(route.segments),
            )
            request.attempt = attempt
            self._advance(attempt)
        elif self._fallback is not None:
            self.counts["fallbacks"] += 1
            future = self._helper.submit(self._fallback, request.inputs)
            future.add_done_callback(
                lambda ended: self._loop.put(partial(self._fell_back, request, ended))
            )
        else:
            self._strand(request)

    def _strand(self, request: ClusterRequest) -> None:
        """Let a request wait for the return of any node: workers restart within seconds."""
        self._stranded.append(request)
        give_up = partial(self._give_up, request, request.attempts)
        self._loop.at(time.monotonic() + self.limits.stranded_s, give_up)
        self._health.is_urgent = True
        self._health.check_all()

    def _returned(self) -> None:
        """Try the stranded requests again, as a node has returned."""
        stranded, self._stranded = self._stranded, []
        self._health.is_urgent = False
        for request in stranded:
            if request.number in self._requests:
                self._try(request)

    def _give_up(self, request: ClusterRequest, attempts: int) -> None:
        if request in self._stranded and request.attempts == attempts:
            self._stranded.remove(request)
            self._health.is_urgent = bool(self._stranded)
            self._fail(request, LayoutselError(self._cut_off()))

    def _advance(self, attempt: Attempt) -> None:
        """Queue the segments whose inputs are at hand; fetch the outputs after the last one."""
        for segment in attempt.ready():
            task = SegmentTask(attempt=attempt, segment=segment)
            attempt.tasks.add(task)
            self._queues.add(task)
        if not attempt.waiting and not attempt.tasks and attempt.is_current:
            self._fetch(attempt)

    def _ran(self, task: SegmentTask, ended: Future[RunTimes]) -> None:
        attempt, segment = task.attempt, task.segment
        if (error := ended.exception()) is not None:
            self._failed(attempt, error)
            return
        assert task.run is not None
        end_s, times = time.monotonic(), ended.result()
        ran = SegmentRan(
            request=attempt.request.number,
            epoch=attempt.epoch.number,
            segment=segment,
            end_s=end_s,
            times=times,
        )
        self._tell(ran)
        us = 1e6 * (end_s - task.began_s) - times.total_us
        self._sent(attempt, segment.inputs, segment.node, task.began_s, us)
        attempt.tensors.update(task.run.outputs)
        self._advance(attempt)

    def _sent(
        self, attempt: Attempt, names: Iterable[str], node: str, start_s: float, us: float
    ) -> None:
        for source, tensors in attempt.received(names, node, self._origin).items():
            event = TensorsSent(
                request=attempt.request.number,
                source=source,
                destination=node,
                tensors=tuple(tensors),
                bytes=attempt.bytes_of(tensors),
                start_s=start_s,
                us=max(0.0, us),
            )
            self._tell(event)

    def _fetch(self, attempt: Attempt) -> None:
        began_s = time.monotonic()
        refs = {name: ref for name, ref in attempt.tensors.items() if name.startswith(_OUTPUT)}
        self._engine.fetch(refs).add_done_callback(
            lambda ended: self._loop.put(partial(self._fetched, attempt, ended, began_s))
        )
        patience_s = self.limits.patience_s(
            attempt.transfer_us(refs, self._origin), attempt.request.attempts
        )
        overdue = partial(self._not_fetched, attempt, tuple(refs), patience_s)
        self._loop.at(began_s + patience_s, overdue)

    def _fetched(self, attempt: Attempt, ended: Future[Tensors], began_s: float) -> None:
        if not attempt.is_current:
            self._came_late()
        elif (error := ended.exception()) is not None:
            self._failed(attempt, error)
        else:
            us = 1e6 * (time.monotonic() - began_s)
            self._sent(attempt, ended.result(), self._origin, began_s, us)
            self._answer(attempt.request, ended.result())

    def _fell_back(self, request: ClusterRequest, ended: Future[Tensors]) -> None:
        if (error := ended.exception()) is not None:
            self._fail(request, error)
        else:
            self._answer(request, ended.result())

    def _answer(self, request: ClusterRequest, result: Tensors) -> None:
        if self._end(request):
            self.counts["answers"] += 1
            us = 1e6 * (time.monotonic() - request.start_s)
            answered = RequestAnswered(
                request=request.number, start_s=request.start_s, us=us, attempts=request.attempts
            )
            self._tell(answered)
            request.future.set_result(result)

    def _fail(self, request: ClusterRequest, error: BaseException) -> None:
        if self._end(request):
            self.counts["failures"] += 1
            request.future.set_exception(error)

    def _fail_all(self, error: BaseException) -> None:
        for request in list(self._requests.values()):
            self._fail(request, error)

    def _end(self, request: ClusterRequest) -> bool:
        """Forget a request; False if it has ended already."""
        if self._requests.pop(request.number, None) is None:
            return False
        self._abandon(request)
        self._places.release()
        return True

    def _abandon(self, request: ClusterRequest) -> None:
        """End the current attempt; results of it are late from now on."""
        attempt, request.attempt = request.attempt, None
        if attempt is not None:
            self._queues.drop(attempt)
            attempt.tensors.clear()  # timers keep the attempt for a while

    def _overdue(self, number: int) -> None:
        if (request := self._requests.get(number)) is not None:
            self._fail(request, RunTimeout(self._too_long(request)))

    def _came_late(self) -> None:
        self.counts["late"] += 1

    def _missed(self, task: SegmentTask) -> None:
        """Examine the node of an overdue run, and the nodes that its inputs come from."""
        self.counts["misses"] += 1
        node = task.segment.node
        sources = task.attempt.received(task.segment.inputs, node, self._origin)
        done = partial(self._examined, task)
        if not self._health.examine({node, *sources} - {self._origin} | {node}, done):
            self._queues.extend(task)

    def _examined(self, task: SegmentTask, silent: frozenset[str]) -> None:
        """Replay around silent nodes, or else around the slow node of the run."""
        node = task.segment.node
        if not task.attempt.is_current or task not in task.attempt.tasks:
            return
        why = f"segment {task.segment.id!r} did not end within {1e3 * task.patience_s:.0f} ms"
        if silent:
            self._lose(silent, f"{why}, and it does not answer")
        elif self._has_way_around({node}):
            self._lose(frozenset({node}), f"{why}: it is slow")
        else:
            self._queues.extend(task)  # slow is better than nothing

    def _not_fetched(self, attempt: Attempt, names: Sequence[str], patience_s: float) -> None:
        """Examine the nodes whose outputs did not arrive in time."""
        if not attempt.is_current:
            return
        self.counts["misses"] += 1
        sources = frozenset(attempt.received(names, self._origin, self._origin))

        def examined(silent: frozenset[str]) -> None:
            if attempt.is_current and (silent or self._has_way_around(sources)):
                self._lose(silent or sources, "the outputs of the model did not arrive in time")

        self._health.examine(sources, examined)
        again_s = time.monotonic() + 2 * patience_s
        self._loop.at(again_s, partial(self._not_fetched, attempt, names, 2 * patience_s))

    def _has_way_around(self, nodes: Iterable[str]) -> bool:
        lost = self._health.lost.union(nodes)
        return self._fallback is not None or self.epoch.avoids(lost)

    def _failed(self, attempt: Attempt, error: BaseException) -> None:
        if not isinstance(error, NodeLost):
            self._fail(attempt.request, error)
            return
        self._lose(frozenset({error.node}), error.why)
        if attempt.is_current:  # the lost node is not on the route: for instance the origin
            self._replay(attempt.request)

    def _lose(self, nodes: frozenset[str], why: str) -> None:
        """Put nodes into quarantine and replay all requests that they take part in."""
        for node in sorted(nodes):
            self.counts["faults"] += self._health.lose(node, why)
            self._queues.clear(node)
        for request in list(self._requests.values()):
            if (attempt := request.attempt) is not None and nodes & nodes_of(attempt.route):
                self._replay(request)

    def _replay(self, request: ClusterRequest) -> None:
        self.counts["replays"] += 1
        self._abandon(request)
        self._try(request)

    def _cut_off(self) -> str:
        return (
            f"no route is left: {self._lost()} lost; expected a route that avoids them in the "
            f"distribution. Restore the nodes, or deploy with a local fallback"
        )

    def _given_up(self, request: ClusterRequest) -> str:
        return (
            f"request {request.number}: given up after {self.limits.attempts} attempts; "
            f"nodes without work: {self._lost()}"
        )

    def _too_long(self, request: ClusterRequest) -> str:
        tasks = request.attempt.tasks if request.attempt is not None else ()
        runs = (f"segment {one.segment.id!r} on node {one.segment.node!r}" for one in tasks)
        return (
            f"request {request.number}: no answer within {self.limits.request_s:g} s; it waits for "
            f"{', '.join(runs) or 'its outputs'}"
        )

    def _lost(self) -> str:
        return ", ".join(sorted(self._health.lost)) or "none"
