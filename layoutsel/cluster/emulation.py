"""Emulation of a topology on one machine: messages take their predicted time, busy nodes longer."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import replace
from functools import partial
from weakref import WeakKeyDictionary

from layoutsel.cluster.engine import NodeTensor, RunTimes
from layoutsel.cluster.event_loop import EventLoop
from layoutsel.cluster.forwarding import forward
from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.segment_runner import PackedTensor
from layoutsel.errors import WorkerClosed

_Tensor = Future[PackedTensor]
_SLEEP_S = 1e-4
"""Sleeps while a message is on its way or other work occupies a node, seconds.

They are short, because processors that rest are slower afterwards, and those of emulated nodes
would not rest.
"""
_LATE_S = 2e-4
"""Time by which a sleep may take too long, seconds."""


class Emulation:
    """Delays the tensors and runs of an engine as a topology in a state would.

    A tensor is sent once to each node that reads it. It occupies each wire and processor of its
    route for its predicted time, after the messages before it. A node whose statistics say that
    other work occupies it computes longer by that factor.

    Parameters
    ----------
    routes
        Topology in its state.
    """

    def __init__(self, routes: MessageRoutes) -> None:
        self._routes = routes
        self._free_s: dict[str, float] = {}
        self._sent: WeakKeyDictionary[_Tensor, dict[str, _Tensor]] = WeakKeyDictionary()
        self._open: set[_Tensor] = set()
        self._turn = threading.Lock()
        self._loop = EventLoop("layoutsel-links", self._fail_all, look_s=_SLEEP_S)

    def arriving(self, refs: Mapping[str, NodeTensor], node: str) -> dict[str, NodeTensor]:
        """Send tensors to a node; those that it has made itself are there already."""
        return {
            name: ref
            if self._place(ref.node) == self._place(node)
            else NodeTensor(node=node, handle=self._message(ref, self._place(node)))
            for name, ref in refs.items()
        }

    def slowed(self, node: str, times: RunTimes) -> RunTimes:
        """Wait on the node's thread for as long as other work would have delayed a run."""
        end_s = time.perf_counter()
        compute_us = times.compute_us * self._routes.statistics.slowdown(node)
        end_s += 1e-6 * (compute_us - times.compute_us)
        while (left_s := end_s - time.perf_counter()) > 0:
            time.sleep(_SLEEP_S if left_s > _LATE_S else 0.0)
        return replace(times, compute_us=compute_us)

    def close(self) -> None:
        """Fail the messages on their way."""
        self._loop.close()

    def _place(self, node: str) -> str:
        """Node of a tensor; inputs of the model lie on the origin."""
        return node or self._routes.topology.origin

    def _message(self, ref: NodeTensor, node: str) -> _Tensor:
        with self._turn:
            sent = self._sent.setdefault(ref.handle, {})
            if node in sent:
                return sent[node]
            message = sent[node] = Future()
            self._open.add(message)
        send = partial(self._send, message, self._place(ref.node), node)
        forward(ref.handle, send, partial(self._fail, message))
        return message

    def _send(self, message: _Tensor, source: str, node: str, tensor: PackedTensor) -> None:
        if self._loop.is_closed:
            self._fail(message, WorkerClosed("the engine was closed before the end of a message"))
            return
        arrival_s = self._arrival_s(source, node, tensor.bits.nbytes)
        deliver = partial(self._deliver, message, tensor)
        self._loop.put(partial(self._loop.at, arrival_s, deliver))

    def _arrival_s(self, source: str, node: str, size: int) -> float:
        """Time of the monotonic clock when a message arrives that is sent now."""
        now_s = time.monotonic()
        with self._turn:
            for step in self._routes.route(source, node).steps:
                start_s = max(now_s, *(self._free_s.get(name, 0.0) for name in step.busy))
                for name, line in step.busy.items():
                    self._free_s[name] = start_s + 1e-6 * line.at(size)
                now_s = start_s + 1e-6 * step.line.at(size)
        return now_s

    def _deliver(self, message: _Tensor, tensor: PackedTensor) -> None:
        self._open.discard(message)
        with suppress(InvalidStateError):  # the engine has been closed meanwhile
            message.set_result(tensor)

    def _fail(self, message: _Tensor, error: BaseException) -> None:
        self._open.discard(message)
        with suppress(InvalidStateError):
            message.set_exception(error)

    def _fail_all(self, error: BaseException) -> None:
        for message in list(self._open):
            self._fail(message, error)
