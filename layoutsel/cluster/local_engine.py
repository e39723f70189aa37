"""An engine whose nodes are threads of this process."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from layoutsel.cluster.engine import (
    Announced,
    NodeLost,
    NodeRefused,
    NodeTensor,
    RunTimes,
    SegmentRun,
    Tensors,
    Work,
    digest,
)
from layoutsel.cluster.own_load import OwnLoad
from layoutsel.cluster.segment_runner import PackedTensor, SegmentRunner
from layoutsel.cluster.statistics import NodeState
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.loading import load

_ORIGIN = ""
"""Node of tensors that the caller handed in."""


class LocalEngine:
    """Runs segments on threads of this process: for tests, and as the fallback of a cluster.

    Nodes with the same artifact share its code and weights. Tensors pass between them without
    copies.

    Parameters
    ----------
    nodes
        Number of threads by node.
    """

    def __init__(self, nodes: Mapping[str, int]) -> None:
        self._threads = dict(nodes)
        self._load = OwnLoad()
        self._models: dict[str, CompiledModel] = {}
        self._runners: dict[str, tuple[str, SegmentRunner]] = {}
        self._queues = {
            node: ThreadPoolExecutor(1, thread_name_prefix=f"layoutsel-{node}") for node in nodes
        }

    def nodes(self) -> Mapping[str, NodeState]:
        """State of this machine for all nodes."""
        return dict.fromkeys(self._threads, self._load.state())

    def load(self, node: str, artifact: Announced, limit_s: float) -> None:
        """Open an artifact on a node; see :meth:`ClusterEngine.load`.

        The file is on this machine, so the limit has no meaning.
        """
        if node not in self._threads:
            raise NodeLost(node, f"expected one of {', '.join(self._threads)}")
        loaded, runner = self._runners.get(node, ("", None))
        if loaded == artifact.sha256:
            return
        if artifact.sha256 not in self._models:
            if (found := digest(artifact.path)) != artifact.sha256:
                raise NodeRefused(
                    f"node {node!r}: {artifact.path} has the SHA-256 {found}; "
                    f"expected {artifact.sha256}: announce the file again"
                )
            self._models[artifact.sha256] = load(artifact.path)
        model = self._models[artifact.sha256]
        new = SegmentRunner(model, node, threads=self._threads[node])
        self._runners[node] = artifact.sha256, new
        if runner is not None:
            runner.close()

    def put(self, tensors: Tensors) -> Mapping[str, NodeTensor]:
        """Hand in arrays; see :meth:`ClusterEngine.put`."""
        return {
            name: NodeTensor(node=_ORIGIN, handle={name: PackedTensor.plain(array)})
            for name, array in tensors.items()
        }

    @property
    def names(self) -> Collection[str]:
        """Names of the nodes."""
        return self._threads.keys()

    def start(
        self,
        work: Work,
        inputs: Mapping[str, NodeTensor],
        results: dict[str, PackedTensor] | None = None,
    ) -> SegmentRun:
        """Queue a run on the node's thread; see :meth:`ClusterEngine.start`.

        The outputs are put into `results`, if it is given.
        """
        results = {} if results is None else results
        refs = {name: NodeTensor(node=work.node, handle=results) for name in work.outputs}
        run = SegmentRun(outputs=refs)
        if work.node not in self._runners:
            run.times.set_exception(NodeLost(work.node, "it has no artifact: load one"))
            return run
        _, runner = self._runners[work.node]

        def compute() -> RunTimes:
            outputs, times = runner.run(work, _opened(inputs))
            results.update(outputs)
            return times

        _chain(self._queues[work.node].submit(compute), run.times)
        return run

    def fetch(self, refs: Mapping[str, NodeTensor]) -> Future[Tensors]:
        """Return arrays; see :meth:`ClusterEngine.fetch`."""
        found: Future[Tensors] = Future()
        found.set_result({name: packed.array for name, packed in _opened(refs).items()})
        return found

    def close(self) -> None:
        """End all threads."""
        for queue in self._queues.values():
            queue.shutdown(wait=False, cancel_futures=True)
        for _, runner in self._runners.values():
            runner.close()


def _opened(refs: Mapping[str, NodeTensor]) -> dict[str, PackedTensor]:
    return {name: ref.handle[name] for name, ref in refs.items()}


def _chain(source: Future[RunTimes], target: Future[RunTimes]) -> None:
    """Give `target` the end of `source`."""

    def copy(ended: Future[RunTimes]) -> None:
        if ended.cancelled():
            target.cancel()
        elif (error := ended.exception()) is not None:
            target.set_exception(error)
        else:
            target.set_result(ended.result())

    source.add_done_callback(copy)
