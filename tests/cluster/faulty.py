"""An engine with the faults of networks and nodes that threads of one process cannot have."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future

from layoutsel.cluster.engine import (
    Announced,
    ClusterEngine,
    NodeLost,
    NodeTensor,
    RunTimes,
    SegmentRun,
    Tensors,
    Work,
)
from layoutsel.cluster.statistics import NodeState


class Faulty:
    """Passes everything on to another engine, unless a node is cut off, dead or slow."""

    def __init__(self, engine: ClusterEngine) -> None:
        self.engine = engine
        self.silent: set[str] = set()
        """Nodes that take work and never answer."""
        self.dead: set[str] = set()
        """Nodes whose loss the engine reports."""
        self.slow_s: dict[str, float] = {}
        """Delay of the answers of nodes, seconds; `awake` ends all delays."""
        self.awake = threading.Event()
        self.die_at: dict[str, str] = {}
        """Segments at whose start a node dies or falls silent: ``dead`` or ``silent``."""
        self.stuck: set[tuple[str, str]] = set()
        """Segments and nodes whose runs never end, as their inputs do not come."""
        self.raising: dict[str, Exception] = {}
        """Errors that the starts of segments raise."""
        self.started: list[Work] = []
        """All works, in order."""

    def nodes(self) -> Mapping[str, NodeState]:
        lost = self.dead | self.silent
        return {node: state for node, state in self.engine.nodes().items() if node not in lost}

    def load(self, node: str, artifact: Announced, limit_s: float) -> None:
        if node in self.dead | self.silent:
            raise NodeLost(node, "it does not answer")
        self.engine.load(node, artifact, limit_s)

    def put(self, tensors: Tensors) -> Mapping[str, NodeTensor]:
        return self.engine.put(tensors)

    def start(self, work: Work, inputs: Mapping[str, NodeTensor]) -> SegmentRun:
        self.started.append(work)
        if (fault := self.die_at.pop(work.segment, None)) is not None:
            getattr(self, fault).add(work.node)
        if work.node in self.dead:
            return self._dead(work)
        if (error := self.raising.pop(work.segment, None)) is not None:
            raise error
        if (work.segment, work.node) in self.stuck:
            return SegmentRun(outputs={})
        run = self.engine.start(work, inputs)
        if work.node in self.silent:
            return SegmentRun(outputs=run.outputs)
        delay_s = self.slow_s.get(work.node)
        if delay_s is None:
            return run
        return SegmentRun(outputs=run.outputs, times=late(run, self.awake, delay_s))

    def fetch(self, refs: Mapping[str, NodeTensor]) -> Future[Tensors]:
        if lost := {ref.node for ref in refs.values()} & (self.dead | self.silent):
            future: Future[Tensors] = Future()
            if lost & self.dead:
                future.set_exception(NodeLost(min(lost), "its memory is gone"))
            return future
        return self.engine.fetch(refs)

    def close(self) -> None:
        self.engine.close()

    def _dead(self, work: Work) -> SegmentRun:
        run = SegmentRun(outputs={})
        run.times.set_exception(NodeLost(work.node, "its process died"))
        return run


def late(run: SegmentRun, awake: threading.Event, delay_s: float) -> Future[RunTimes]:
    """Times of a run, some seconds later or after an event."""
    found: Future[RunTimes] = Future()

    def wait() -> None:
        awake.wait(delay_s)
        found.set_result(run.times.result(30))

    threading.Thread(target=wait, daemon=True).start()
    return found
