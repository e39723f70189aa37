"""A model that runs on the nodes of a topology."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from layoutsel.cluster.attained import AttainedRate
from layoutsel.cluster.controller import Controller
from layoutsel.cluster.distribution import Distribution, Distributions, Route
from layoutsel.cluster.engine import Announced, ClusterEngine, NodeLost, Tensors
from layoutsel.cluster.node_queues import ClusterLimits
from layoutsel.cluster.routing import Epoch, nodes_of
from layoutsel.cluster.statistics import Statistics
from layoutsel.cluster.timeline import Timeline
from layoutsel.cluster.watch import Observations, Replacement, Replanning
from layoutsel.core.closing import Closing
from layoutsel.device.artifact_header import read_header
from layoutsel.device.signature import Signature
from layoutsel.runtime.binding import bind
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.loading import load
from layoutsel.runtime.samples import random_inputs, rel_l2_err
from layoutsel.runtime.streams import Request, in_order, inputs_of
from tvm_passes.errors import LayoutselError

logger = logging.getLogger(__name__)

LOAD_S = 300.0
"""Time limit of the transfer and loading of an artifact, seconds."""
SNAPSHOT_S = 2.0
"""Time between two snapshots for re-planning, seconds."""
_REST = 5.0
"""Pause after a trial that led to no change, as a multiple of its time: it costs as requests do."""
_TOLERANCE = 0.05
"""Relative L2 error between routes: machine classes may compute in different precisions."""


class DeployedNetwork(Closing):
    """A network on the nodes of a topology: a callable, as :class:`CompiledModel` is.

    Calls from several threads are safe and run at the same time. Made by :func:`deploy`; the end of
    a ``with`` block closes it.
    """

    def __init__(
        self,
        distributions: Distributions,
        distribution: Distribution,
        artifacts: Mapping[str, Announced],
        engine: ClusterEngine,
        *,
        limits: ClusterLimits,
        fallback: bool,
    ) -> None:
        self.name = distributions.model_name
        """Name of the model."""
        self.timeline = Timeline()
        """Events for a trace."""
        origin = distributions.topology.graph.origin
        self._artifacts = {node: artifacts[name] for node, name in distributions.classes.items()}
        header = read_header(self._artifacts[origin].path)
        self.inputs = tuple(Signature.read(one) for one in header["inputs"])
        self.outputs = tuple(Signature.read(one) for one in header["outputs"])
        self._observations = Observations()
        self._attained = AttainedRate()
        self._engine, self._origin = engine, origin
        self._local: CompiledModel | None = None
        self._local_turn = threading.Lock()
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None
        missing = self._load_nodes(Epoch(0, distribution).all_routes())
        self.controller = Controller(
            engine,
            distribution,
            origin,
            limits=limits,
            fallback=self._alone if fallback else None,
            revive=lambda node, limit_s: engine.load(node, self._artifacts[node], limit_s),
            expected_us=self._observations.expected_us,
            observers=(self._observations, self._attained, self.timeline),
        )
        if missing:
            self.controller.exclude(missing, "; ".join(map(str, missing.values())))

    def __call__(
        self, /, *arguments: np.ndarray, **named: np.ndarray
    ) -> np.ndarray | tuple[np.ndarray, ...]:
        """Run on inputs by position or by name; returns one array, or a tuple in model order.

        Raises
        ------
        InputError
            If an input is missing, unknown, or of another shape or element type.
        RunTimeout
            If there is no answer within the limit.
        LayoutselError
            If no route is left, as nodes are lost.
        """
        future = self.submit(self._named(arguments, named))
        return self._results(future.result(self._patience_s))

    def stream(self, requests: Iterable[Request]) -> Iterator[np.ndarray | tuple[np.ndarray, ...]]:
        """Run on many inputs at once and yield the results in their order.

        A request is taken from `requests` when there is a place for it: at most
        :attr:`ClusterLimits.in_flight` are in progress or wait for the reader of the results.
        """

        def submit(request: Request) -> Future[Tensors]:
            return self.submit(self._named(*inputs_of(request)))

        for future in in_order(requests, submit, self.controller.limits.in_flight):
            start_s = time.monotonic()
            tensors = future.result(self._patience_s)
            self._attained.waited(start_s, time.monotonic())
            yield self._results(tensors)

    def submit(self, tensors: Tensors) -> Future[Tensors]:
        """Queue a request with checked tensors by name, such as ``input.0``."""
        return self.controller.submit(tensors)

    @property
    def counts(self) -> Counter[str]:
        """Numbers of answers, failures, replays, late results, misses, faults and fallbacks."""
        return self.controller.counts

    def statistics(self) -> Statistics:
        """Snapshot of the last seconds."""
        return self._observations.snapshot(self._engine.nodes())

    def attained_hz(self) -> float | None:
        """Throughput of the current distribution in the last seconds; None if it is not busy."""
        return self._attained.hz()

    def switch(self, distribution: Distribution) -> int:
        """Replace the distribution without a pause; returns the number of the new epoch.

        The new nodes load their artifacts, and one sample runs on each new route and is compared
        with the current routes, while requests go on. Requests in progress end on their routes.

        Raises
        ------
        LayoutselError
            If a route is wrong; the current distribution stays.
        """
        self._try(distribution)
        return self.controller.switch(distribution)

    def watch(self, propose: Callable[[Statistics], Replacement | None]) -> None:
        """Re-plan in the background when statistics change; see :class:`Replanning`."""
        watch = Replanning(propose)

        def work() -> None:
            while not self._stop.wait(SNAPSHOT_S):
                try:
                    if (better := watch.consider(self.statistics())) is None:
                        continue
                    start_s = time.monotonic()
                    self._try(better)
                    if watch.confirms(self.statistics()):
                        number = self.controller.switch(better)
                        logger.warning("%s: epoch %d begins", self.name, number)
                    else:
                        self._stop.wait(_REST * (time.monotonic() - start_s))
                except LayoutselError as error:
                    logger.warning("%s: the distribution stays: %s", self.name, error)

        self._watcher = threading.Thread(target=work, name="layoutsel-watch", daemon=True)
        self._watcher.start()

    def save_trace(self, path: Path) -> None:
        """Write a Chrome trace with one row for each node and link."""
        self.timeline.save(path, self.name)

    def close(self) -> None:
        """Fail the requests in progress and stop the segments."""
        self._stop.set()
        if self._watcher is not None:
            self._watcher.join(self._patience_s)
        self.controller.close()
        self._engine.close()

    @property
    def _patience_s(self) -> float:
        # The controller's own limit comes first, and names the segment.
        return 2 * self.controller.limits.request_s

    def _try(self, distribution: Distribution) -> None:
        """Load the artifacts of other routes, and compare the results of a sample on each."""
        new = Epoch(0, distribution).all_routes()
        missing = self._load_nodes(new)
        names = (f"input.{index}" for index in range(len(self.inputs)))
        sample = dict(zip(names, random_inputs(self.inputs), strict=True))
        want = self.controller.submit(sample).result(self._patience_s)
        for route in new:
            if not nodes_of(route) & missing.keys():
                got = self.controller.submit(sample, route).result(self._patience_s)
                _check_same(got, want, route)

    def _load_nodes(self, routes: Sequence[Route]) -> dict[str, NodeLost]:
        """Open the artifacts on all nodes of routes at once; returns the lost nodes.

        Raises
        ------
        NodeRefused
            If a node does not fit.
        """
        nodes = sorted(frozenset[str]().union(*map(nodes_of, routes)))
        lost: dict[str, NodeLost] = {}

        def open_(node: str) -> None:
            try:
                self._engine.load(node, self._artifacts[node], LOAD_S)
            except NodeLost as error:
                lost[node] = error

        with ThreadPoolExecutor(max(1, len(nodes))) as pool:
            list(pool.map(open_, nodes))
        return lost

    def _alone(self, tensors: Tensors) -> Tensors:
        """Compute a request in this process."""
        with self._local_turn:
            if self._local is None:
                self._local = load(self._artifacts[self._origin].path)
            inputs = [tensors[f"input.{index}"] for index in range(len(self.inputs))]
            results = self._local.run_all(inputs)[: len(self.outputs)]
        return {f"output.{index}": result for index, result in enumerate(results)}

    def _named(self, arguments: Sequence[np.ndarray], named: Mapping[str, np.ndarray]) -> Tensors:
        values = bind(self.inputs, arguments, named)
        return {f"input.{index}": value for index, value in enumerate(values)}

    def _results(self, tensors: Tensors) -> np.ndarray | tuple[np.ndarray, ...]:
        """Arrays of the caller's own: those of an engine may be read-only and hold its memory."""
        found = [np.array(tensors[f"output.{index}"]) for index in range(len(self.outputs))]
        return found[0] if len(found) == 1 else tuple(found)


def _check_same(got: Tensors, want: Tensors, route: Route) -> None:
    for name, expected in want.items():
        error = rel_l2_err(got[name], expected)
        if not error <= _TOLERANCE:
            raise LayoutselError(
                f"the route over {', '.join(sorted(nodes_of(route)))} gives another result: "
                f"{name} has a relative error of {error:.2g}; expected at most {_TOLERANCE:g}. "
                f"Compile the artifacts of all machine classes from the same model"
            )
