"""The controller on the origin node: takes requests through their segments, around lost nodes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from layoutsel.cluster.attempt import Attempt, ClusterRequest, SegmentTask
from layoutsel.cluster.distribution import Distribution, Route, Segment
from layoutsel.cluster.engine import ClusterEngine, NodeLost, RunTimes, Tensors
from layoutsel.cluster.event_loop import EventLoop
from layoutsel.cluster.events import Observer
from layoutsel.cluster.health import Health, Revive
from layoutsel.cluster.node_queues import ClusterLimits, NodeQueues, Reactions
from layoutsel.cluster.open_requests import OpenRequests
from layoutsel.cluster.overdue import OverdueWork
from layoutsel.cluster.publishing import EventPublisher
from layoutsel.cluster.request_errors import no_route, too_late, too_many_attempts
from layoutsel.cluster.routing import Epoch, nodes_of
from layoutsel.cluster.stranded import StrandedRequests
from layoutsel.errors import WorkerClosed

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
        self._fallback = fallback
        self._events = EventPublisher(observers, origin)
        self._requests = OpenRequests(self.limits)
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="layoutsel-fallback")
        self._loop = EventLoop("layoutsel-controller", self._fail_all)
        self._stranded = StrandedRequests(
            self._loop, self.limits.stranded_s, retry=self._try, give_up=self._cut_off
        )
        self._health = Health(
            self._loop,
            revive,
            returned=self._stranded.retry_all,
            is_urgent=lambda: bool(self._stranded),
        )
        reactions = Reactions(ended=self._ran, late=self._came_late, missed=self._missed)
        self._queues = NodeQueues(engine, self._loop, self.limits, expected_us, reactions)
        self._overdue = OverdueWork(
            self._health, self._queues, origin, has_way_around=self._has_way_around, lose=self._lose
        )

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
        request = self._requests.open(inputs, tensors)
        # A loop that ends later than this fails the request itself.
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

    def _accept(self, request: ClusterRequest, route: Route | None) -> None:
        expire = partial(self._expire, request.number)  # a timer must not keep the inputs
        self._loop.at(request.start_s + self.limits.request_s, expire)
        self._try(request, route)

    def _try(self, request: ClusterRequest, route: Route | None = None) -> None:
        """Begin the next attempt at a request."""
        request.attempts += 1
        route = route or self.epoch.route(self._health.lost)
        if request.attempts > self.limits.attempts:
            self._fail(request, too_many_attempts(request, self.limits.attempts, self.quarantined))
        elif route is not None:
            self._advance(Attempt.begin(request, self.epoch, route))
        elif self._fallback is not None:
            self.counts["fallbacks"] += 1
            future = self._helper.submit(self._fallback, request.inputs)
            future.add_done_callback(
                lambda ended: self._loop.put(partial(self._fell_back, request, ended))
            )
        else:
            self._stranded.add(request)
            self._health.check_all()

    def _cut_off(self, request: ClusterRequest) -> None:
        self._fail(request, no_route(self.quarantined))

    def _advance(self, attempt: Attempt) -> None:
        """Queue the segments whose inputs are at hand; fetch the outputs after the last one."""
        for segment in attempt.ready():
            task = SegmentTask(attempt=attempt, segment=segment)
            attempt.tasks.add(task)
            self._queues.add(task)
        if not attempt.waiting and not attempt.tasks and attempt.is_current:
            self._fetch(attempt)

    def _ran(self, task: SegmentTask, ended: Future[RunTimes]) -> None:
        attempt = task.attempt
        if (error := ended.exception()) is not None:
            self._failed(attempt, error)
            return
        assert task.run is not None
        self._events.ran(task, ended.result())
        attempt.tensors.update(task.run.outputs)
        self._advance(attempt)

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
            self._events.fetched(attempt, ended.result(), began_s)
            self._answer(attempt.request, ended.result())

    def _fell_back(self, request: ClusterRequest, ended: Future[Tensors]) -> None:
        if (error := ended.exception()) is not None:
            self._fail(request, error)
        else:
            self._answer(request, ended.result())

    def _answer(self, request: ClusterRequest, result: Tensors) -> None:
        if self._end(request):
            self.counts["answers"] += 1
            self._events.answered(request)
            request.future.set_result(result)

    def _fail(self, request: ClusterRequest, error: BaseException) -> None:
        if self._end(request):
            self.counts["failures"] += 1
            request.future.set_exception(error)

    def _fail_all(self, error: BaseException) -> None:
        for request in self._requests:
            self._fail(request, error)

    def _end(self, request: ClusterRequest) -> bool:
        """Forget a request; False if it has ended already."""
        if not self._requests.end(request):
            return False
        self._abandon(request)
        return True

    def _abandon(self, request: ClusterRequest) -> None:
        """End the current attempt; results of it are late from now on."""
        attempt, request.attempt = request.attempt, None
        if attempt is not None:
            self._queues.drop(attempt)
            attempt.tensors.clear()  # timers keep the attempt for a while

    def _expire(self, number: int) -> None:
        if (request := self._requests.get(number)) is not None:
            self._fail(request, too_late(request, self.limits.request_s))

    def _came_late(self) -> None:
        self.counts["late"] += 1

    def _missed(self, task: SegmentTask) -> None:
        self.counts["misses"] += 1
        self._overdue.run(task)

    def _not_fetched(self, attempt: Attempt, names: Sequence[str], patience_s: float) -> None:
        """Examine the nodes of late outputs, and again after twice the time."""
        if not attempt.is_current:
            return
        self.counts["misses"] += 1
        self._overdue.outputs(attempt, names)
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
        for request in self._requests:
            if (attempt := request.attempt) is not None and nodes & nodes_of(attempt.route):
                self._replay(request)

    def _replay(self, request: ClusterRequest) -> None:
        self.counts["replays"] += 1
        self._abandon(request)
        self._try(request)
