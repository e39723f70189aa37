"""An engine of Ray actors, one on each node of the cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from layoutsel.cluster.engine import (
    Announced,
    NodeLost,
    NodeRefused,
    NodeTensor,
    SegmentRun,
    Tensors,
    Work,
)
from layoutsel.cluster.forwarding import forward
from layoutsel.cluster.heads import check_head
from layoutsel.cluster.local_engine import LocalEngine
from layoutsel.cluster.ray_settings import DRIVER, MOST_INLINE, RESOURCE, TUNING, Security
from layoutsel.cluster.segment_actor import SegmentActor, versions
from layoutsel.cluster.segment_runner import PackedTensor
from layoutsel.cluster.statistics import NodeState
from tvm_passes.errors import LayoutselError

T = TypeVar("T")
_PART_BYTES = 16 << 20
"""Size of the parts in which an artifact travels."""
_AT_ONCE = 4
"""Calls that an actor takes at once: it computes one, and inputs of others arrive."""
_STATE_S = 1.0
"""Longest wait for the states of nodes, seconds."""


@dataclass(eq=False)
class _Held:
    """A tensor of this process; other nodes get a reference to it."""

    tensor: Future[PackedTensor]
    """The tensor, as :class:`LocalEngine` handles it."""
    ref: Any = None
    """Ray's reference; None until another node reads the tensor."""

    def argument(self, ray: Any) -> Any:
        """The tensor itself, which goes with the call; a reference to a large one, held by Ray."""
        tensor = self.tensor.result(0)  # segments start when their inputs are there
        if tensor.bits.nbytes <= MOST_INLINE:
            return tensor
        if self.ref is None:
            self.ref = ray.put(tensor)
        return self.ref


class RayEngine:
    """Runs segments in Ray actors, and those of the origin in this process.

    Tensors stay on the node that made them, until the next node fetches them; the controller only
    handles references. A killed actor is started again by Ray, and :meth:`load` loads its artifact
    again. A call of an actor takes some milliseconds of processor time on both nodes; segments of
    the origin need none.

    Parameters
    ----------
    threads
        Number of threads by node.
    origin
        Node of this process; None to run all segments in actors.
    address
        Address of the head; ``auto`` for the one on this machine.
    security
        Protection of the cluster.

    Raises
    ------
    LayoutselError
        If Ray is not installed or there is no cluster.
    """

    def __init__(
        self,
        threads: Mapping[str, int],
        *,
        origin: str | None = None,
        address: str = "auto",
        security: Security | None = None,
    ) -> None:
        self._origin = origin
        self._threads = {node: count for node, count in threads.items() if node != origin}
        self._here = LocalEngine({node: threads[node] for node in threads.keys() - self._threads})
        self._ray = connected(address, security or Security())
        self._actors: dict[str, Any] = {}

    def nodes(self) -> Mapping[str, NodeState]:
        """States of the nodes with an actor that answer."""
        asked = {node: actor.state.remote() for node, actor in list(self._actors.items())}
        ready, _ = self._ray.wait(
            list(asked.values()), num_returns=max(1, len(asked)), timeout=_STATE_S
        )
        found = dict(self._here.nodes())
        for node, ref in asked.items():
            with suppress(self._ray.exceptions.RayError):
                if ref in ready:
                    found[node] = self._ray.get(ref)
        return found

    def load(self, node: str, artifact: Announced, limit_s: float) -> None:
        """Open an artifact on a node; see :meth:`ClusterEngine.load`."""
        if node == self._origin:
            self._here.load(node, artifact, limit_s)
            return
        actor = self._actor(node)
        if self._get(node, actor.has.remote(artifact.sha256), limit_s):
            return
        self._check_versions(node, self._get(node, actor.facts.remote(), limit_s))
        wanted = artifact.sha256, str(artifact.path)
        if self._get(node, actor.open.remote(*wanted), limit_s):
            return
        content = np.memmap(artifact.path, np.uint8, "r")
        for offset in range(0, content.size, _PART_BYTES):
            part = np.array(content[offset : offset + _PART_BYTES])
            self._get(node, actor.receive.remote(artifact.sha256, offset, part), limit_s)
        self._get(node, actor.receive.remote(artifact.sha256, 0, None), limit_s)
        if not self._get(node, actor.open.remote(*wanted), limit_s):
            raise NodeRefused(f"node {node!r}: {artifact.path} has changed: announce it again")

    def put(self, tensors: Tensors) -> Mapping[str, NodeTensor]:
        """Hand in arrays; see :meth:`ClusterEngine.put`."""
        return _held(self._here.put(tensors))

    def start(self, work: Work, inputs: Mapping[str, NodeTensor]) -> SegmentRun:
        """Call the node's actor; see :meth:`ClusterEngine.start`."""
        if work.node == self._origin:
            run = self._here.start(work, self._brought(inputs))
            return SegmentRun(outputs=_held(run.outputs), times=run.times)
        actor_run = self._actor(work.node).run.options(num_returns=1 + len(work.outputs))
        handles = [self._argument(ref) for ref in inputs.values()]
        times, *outputs = _listed(actor_run.remote(work, tuple(inputs), *handles))
        refs = {
            name: NodeTensor(node=work.node, handle=handle)
            for name, handle in zip(work.outputs, outputs, strict=True)
        }
        started = SegmentRun(outputs=refs)
        holders = {
            handle.hex(): ref.node
            for handle, ref in zip(handles, inputs.values(), strict=True)
            if not isinstance(handle, PackedTensor)
        }
        self._forward(times, started.times, work.node, holders)
        return started

    def fetch(self, refs: Mapping[str, NodeTensor]) -> Future[Tensors]:
        """Bring tensors here; see :meth:`ClusterEngine.fetch`."""
        return self._here.fetch(self._brought(refs))

    def close(self) -> None:
        """End the actors and leave the cluster."""
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._actors.clear()
        self._here.close()
        self._ray.shutdown()

    def _brought(self, refs: Mapping[str, NodeTensor]) -> dict[str, NodeTensor]:
        """Tensors of this process: those of other nodes arrive, or fail with NodeLost."""
        return {name: replace(ref, handle=self._arriving(ref)) for name, ref in refs.items()}

    def _arriving(self, ref: NodeTensor) -> Future[PackedTensor]:
        if isinstance(ref.handle, _Held):
            return ref.handle.tensor
        arriving: Future[PackedTensor] = Future()
        self._forward(ref.handle, arriving, ref.node, {})
        return arriving

    def _argument(self, tensor: NodeTensor) -> Any:
        """Argument of a call for a tensor: Ray's reference, or the tensor itself."""
        if not isinstance(tensor.handle, _Held):
            return tensor.handle
        try:
            return tensor.handle.argument(self._ray)
        except self._ray.exceptions.RayError as error:
            raise LayoutselError(
                f"the origin cannot hand a tensor to Ray: {_one_line(error)}. Join it with a "
                f"larger --store"
            ) from error

    def _actor(self, node: str) -> Any:
        """Actor of a node; it waits for the node to join."""
        if node not in self._actors:
            if node not in self._threads:
                raise NodeLost(node, f"expected one of {', '.join(self._threads)}")
            threads = self._threads[node]
            made = self._ray.remote(SegmentActor).options(
                num_cpus=threads,
                resources={RESOURCE + node: 0.5},  # and a probe at the same time
                max_restarts=-1,
                max_task_retries=0,
                max_concurrency=_AT_ONCE,
            )
            self._actors[node] = made.remote(node, threads)
        return self._actors[node]

    def _get(self, node: str, ref: Any, limit_s: float) -> Any:
        """Wait for an answer of a node."""
        try:
            return self._ray.get(ref, timeout=limit_s)
        except self._ray.exceptions.GetTimeoutError:
            why = f"no answer within {limit_s:g} s; has 'layoutsel cluster join' been run there?"
            raise NodeLost(node, why) from None
        except self._ray.exceptions.RayError as error:
            fault = self._fault(error, node, {})
            if isinstance(fault, NodeLost):
                raise fault from None
            raise NodeRefused(f"node {node!r}: {fault}") from fault

    def _check_versions(self, node: str, found: Mapping[str, str]) -> None:
        for name, expected in versions().items():
            if found.get(name) != expected:
                raise NodeRefused(
                    f"node {node!r} has {name} {found.get(name, 'of unknown version')}; expected "
                    f"{expected}, as on the origin: install the same on both"
                )

    def _fault(self, error: BaseException, node: str, holders: Mapping[str, str]) -> BaseException:
        """Error of Ray in the terms of engines."""
        exceptions = self._ray.exceptions
        if isinstance(error, exceptions.RayTaskError):
            cause = error.cause
            if isinstance(cause, exceptions.RayError):
                return self._fault(cause, node, holders)
            return cause if isinstance(cause, LayoutselError) else LayoutselError(str(cause))
        if isinstance(error, exceptions.ObjectLostError):
            return NodeLost(holders.get(error.object_ref_hex) or node, "a tensor of it is gone")
        return NodeLost(node, _one_line(error))

    def _forward(self, ref: Any, target: Future[T], node: str, holders: Mapping[str, str]) -> None:
        """Give `target` the value of a reference that a node makes, or its error."""

        def fail(error: BaseException) -> None:
            target.set_exception(self._fault(error, node, holders))

        forward(ref.future(), target.set_result, fail)


def connected(address: str, security: Security) -> Any:
    """Ray, connected to a cluster.

    Ray reads its settings from the process's environment, which this function extends.
    """
    security.check(*(() if address == "auto" else (address,)))
    os.environ.update({**TUNING, **DRIVER, **security.environment()})
    try:
        import ray
    except ImportError as error:
        raise LayoutselError(
            f"the engine 'ray' needs Ray, which cannot be imported ({error}): install it with "
            f"pip install 'layoutsel[cluster]', or deploy with engine='local'"
        ) from error
    head = _head(ray, address)
    check_head(head, security)
    try:
        ray.init(
            address=address,
            logging_level=logging.WARNING,
            log_to_driver=False,
            ignore_reinit_error=True,
        )
    except (ConnectionError, RuntimeError) as error:
        raise LayoutselError(
            f"the head at {head} answers, but Ray cannot join it: {_one_line(error)}. Expected the "
            f"same token (--token-file) on all nodes, and a node that has joined on this machine"
        ) from error
    return ray


def _head(ray: Any, address: str) -> str:
    """Address of the head with its port."""
    if address != "auto":
        return address
    try:
        # Ray has no public function for the cluster of this machine.
        return str(ray._private.services.canonicalize_bootstrap_address(address))
    except ConnectionError as error:
        raise LayoutselError(
            "no cluster on this machine: start one with 'layoutsel cluster join --head', or give "
            "--address"
        ) from error


def _held(tensors: Mapping[str, NodeTensor]) -> dict[str, NodeTensor]:
    return {name: replace(one, handle=_Held(one.handle)) for name, one in tensors.items()}


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _listed(refs: Any) -> Sequence[Any]:
    return refs if isinstance(refs, list) else [refs]
