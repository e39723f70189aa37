"""An engine whose nodes are threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from layoutsel.cluster.emulation import Emulation
from layoutsel.cluster.engine import (
    Announced,
    NodeLost,
    NodeTensor,
    RunTimes,
    SegmentRun,
    Tensors,
    Work,
)
from layoutsel.cluster.forwarding import CLOSED, forward
from layoutsel.cluster.own_load import OwnLoad
from layoutsel.cluster.segment_runner import PackedTensor, SegmentRunner
from layoutsel.cluster.statistics import NodeState
from layoutsel.errors import WorkerClosed
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.loading import load

_Done = TypeVar("_Done")
ORIGIN = ""
"""Node of tensors that the caller handed in."""


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """The artifact of a node; a model that no node has any more is closed."""

    sha256: str
    """Digest of the artifact."""
    model: CompiledModel
    """The artifact, loaded; nodes share it."""
    runner: SegmentRunner
    """Runner of the node's segments."""


class LocalEngine:
    """Runs segments on threads of this process: for tests, and as the fallback of a cluster.

    Nodes with the same artifact share its code and weights. Tensors pass between them without
    copies: the handle of a tensor is a future of it, which a run waits for.

    Parameters
    ----------
    nodes
        Number of threads by node.
    emulation
        Links and loads to emulate; None to pass tensors at once.
    """

    def __init__(self, nodes: Mapping[str, int], emulation: Emulation | None = None) -> None:
        self._threads = dict(nodes)
        self._emulation = emulation
        self._load = OwnLoad()
        self._turn = threading.Lock()
        self._loaded: dict[str, _Loaded] = {}
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
        with self._turn:  # nodes load at the same time, and share what the first one has loaded
            before = self._loaded.get(node)
            if before is not None and before.sha256 == artifact.sha256:
                return
            model = self._open(node, artifact)
            self._loaded[node] = _Loaded(
                sha256=artifact.sha256,
                model=model,
                runner=SegmentRunner(model, node, threads=self._threads[node]),
            )
        if before is not None:
            before.runner.close()

    def put(self, tensors: Tensors) -> Mapping[str, NodeTensor]:
        """Hand in arrays; see :meth:`ClusterEngine.put`."""
        return {
            name: NodeTensor(node=ORIGIN, handle=_done(PackedTensor.plain(array)))
            for name, array in tensors.items()
        }

    def start(self, work: Work, inputs: Mapping[str, NodeTensor]) -> SegmentRun:
        """Queue a run on the node's thread; see :meth:`ClusterEngine.start`."""
        made: Mapping[str, Future[PackedTensor]] = {name: Future() for name in work.outputs}
        refs = {name: NodeTensor(node=work.node, handle=one) for name, one in made.items()}
        run = SegmentRun(outputs=refs)
        if work.node not in self._loaded:
            run.times.set_exception(NodeLost(work.node, "it has no artifact: load one"))
            return run
        runner = self._loaded[work.node].runner

        def compute(tensors: Mapping[str, PackedTensor]) -> RunTimes:
            outputs, times = runner.run(work, tensors)
            if self._emulation is not None:
                times = self._emulation.slowed(work.node, times)
            for name, tensor in outputs.items():
                made[name].set_result(tensor)
            return times

        def queue(tensors: Mapping[str, PackedTensor]) -> None:
            try:
                ended = self._queues[work.node].submit(compute, tensors)
            except RuntimeError:  # the threads have ended
                run.times.set_exception(WorkerClosed(CLOSED))
            else:
                forward(ended, run.times.set_result, run.times.set_exception)

        forward(_all_of(self._arriving(inputs, work.node)), queue, run.times.set_exception)
        return run

    def fetch(self, refs: Mapping[str, NodeTensor]) -> Future[Tensors]:
        """Return arrays; see :meth:`ClusterEngine.fetch`."""
        found: Future[Tensors] = Future()

        def unpack(tensors: Mapping[str, PackedTensor]) -> None:
            found.set_result({name: one.array for name, one in tensors.items()})

        forward(_all_of(self._arriving(refs, ORIGIN)), unpack, found.set_exception)
        return found

    def close(self) -> None:
        """End all threads."""
        if self._emulation is not None:
            self._emulation.close()
        for queue in self._queues.values():
            queue.shutdown(wait=False, cancel_futures=True)
        for one in self._loaded.values():
            one.runner.close()

    def _arriving(self, refs: Mapping[str, NodeTensor], node: str) -> Mapping[str, NodeTensor]:
        """Tensors on a node that wants them; they pass at once without an emulation."""
        return refs if self._emulation is None else self._emulation.arriving(refs, node)

    def _open(self, node: str, artifact: Announced) -> CompiledModel:
        """Model of an artifact: that of another node, or a new one."""
        for one in self._loaded.values():
            if one.sha256 == artifact.sha256:
                return one.model
        artifact.check(node)
        return load(artifact.path)


def _done(value: _Done) -> Future[_Done]:
    future: Future[_Done] = Future()
    future.set_result(value)
    return future


def _all_of(refs: Mapping[str, NodeTensor]) -> Future[Mapping[str, PackedTensor]]:
    """Future of all tensors by name, or of the first error."""
    whole: Future[Mapping[str, PackedTensor]] = Future()
    found: dict[str, PackedTensor] = {}
    turn = threading.Lock()

    def take(name: str, tensor: PackedTensor) -> None:
        with turn:
            found[name] = tensor
            is_last = len(found) == len(refs)
        if is_last:
            whole.set_result(found)

    def fail(error: BaseException) -> None:
        with suppress(InvalidStateError):  # an earlier error is there
            whole.set_exception(error)

    for name, ref in refs.items():
        forward(ref.handle, partial(take, name), fail)
    return whole if refs else _done({})
