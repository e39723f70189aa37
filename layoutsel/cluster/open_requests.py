"""Requests in progress: a limited number of them, each of which ends once."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Mapping

from layoutsel.cluster.attempt import ClusterRequest
from layoutsel.cluster.engine import NodeTensor, Tensors
from layoutsel.cluster.node_queues import ClusterLimits
from layoutsel.errors import RunTimeout


class OpenRequests:
    """Requests that have no answer yet. :meth:`open` and :meth:`end` are safe from any thread.

    Parameters
    ----------
    limits
        Largest number of requests, and the time limit of each.
    """

    def __init__(self, limits: ClusterLimits) -> None:
        self._limits = limits
        self._numbers = itertools.count()
        self._places = threading.BoundedSemaphore(limits.in_flight)
        self._requests: dict[int, ClusterRequest] = {}

    def __iter__(self) -> Iterator[ClusterRequest]:
        """Iterate over the requests that are open at the start."""
        return iter(list(self._requests.values()))

    def get(self, number: int) -> ClusterRequest | None:
        """Request of a number; None once it has ended."""
        return self._requests.get(number)

    def open(self, inputs: Tensors, tensors: Mapping[str, NodeTensor]) -> ClusterRequest:
        """Make a request from its inputs and their tensors in the engine; waits for a place.

        Raises
        ------
        RunTimeout
            If there is no place within twice the time limit of a request.
        """
        # Requests in progress end within their own limit.
        if not self._places.acquire(timeout=2 * self._limits.request_s):
            raise RunTimeout(
                f"{self._limits.in_flight} requests are in progress, and none ended within "
                f"{2 * self._limits.request_s:g} s"
            )
        request = ClusterRequest(
            number=next(self._numbers), inputs=inputs, tensors=tensors, start_s=time.monotonic()
        )
        request.future.set_running_or_notify_cancel()
        self._requests[request.number] = request
        return request

    def end(self, request: ClusterRequest) -> bool:
        """Forget a request and free its place; False if it has ended already."""
        if self._requests.pop(request.number, None) is None:
            return False
        self._places.release()
        return True
