"""Requests without a route, which wait for the return of any node."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from layoutsel.cluster.attempt import ClusterRequest
from layoutsel.cluster.event_loop import EventLoop


class StrandedRequests:
    """Requests that wait, each for a limited time: workers restart within seconds.

    Each wait ends with one call: `retry` after the return of a node, or `give_up` at the time
    limit; with none if the request has ended. A request that is added again waits for the full
    time. All methods run on the thread of the event loop.

    Parameters
    ----------
    loop
        Loop of the controller.
    longest_s
        Time limit of a wait, seconds.
    retry
        Begins the next attempt at a request; may add it again.
    give_up
        Fails a request.
    """

    def __init__(
        self,
        loop: EventLoop,
        longest_s: float,
        *,
        retry: Callable[[ClusterRequest], None],
        give_up: Callable[[ClusterRequest], None],
    ) -> None:
        self._loop, self._longest_s = loop, longest_s
        self._retry, self._give_up = retry, give_up
        self._waits: list[_Wait] = []

    def __len__(self) -> int:
        return len(self._waits)

    def add(self, request: ClusterRequest) -> None:
        """Let a request wait."""
        wait = _Wait(request)
        self._waits.append(wait)
        self._loop.at(time.monotonic() + self._longest_s, partial(self._end, wait))

    def retry_all(self) -> None:
        """End all waits, as a node has returned."""
        waits, self._waits = self._waits, []
        for wait in waits:
            if not wait.request.future.done():
                self._retry(wait.request)

    def _end(self, wait: _Wait) -> None:
        if wait in self._waits:
            self._waits.remove(wait)
            if not wait.request.future.done():
                self._give_up(wait.request)


@dataclass(frozen=True, eq=False)
class _Wait:
    """One wait; a later one of the same request differs from it."""

    request: ClusterRequest
    """The request."""
