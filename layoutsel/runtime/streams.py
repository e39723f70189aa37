"""Streams of requests: inputs in their various forms, and results in the order of the requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import TypeAlias, TypeVar

import numpy as np

T = TypeVar("T")
"""Result of a request."""
Request: TypeAlias = np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]
"""Inputs of one request: the only one, all by position, or all by name."""
Inputs: TypeAlias = tuple[Sequence[np.ndarray], Mapping[str, np.ndarray]]
"""Inputs by position and by name."""


def inputs_of(request: Request) -> Inputs:
    """Separate the inputs by position from those by name, as a call takes them."""
    if isinstance(request, Mapping):
        return (), request
    return ((request,) if isinstance(request, np.ndarray) else request), {}


def in_order(
    requests: Iterable[Request], submit: Callable[[Request], Future[T]], places: int
) -> Iterator[Future[T]]:
    """Submit requests and yield their futures in order, the first one as soon as it has ended.

    A request is taken when there is a place for it. The end of the iterator, by an error or an
    interrupt as well, cancels the requests that have not begun.

    Parameters
    ----------
    requests
        Inputs of the requests.
    submit
        Queues a request.
    places
        Largest number of requests in progress or with an unread result.
    """
    waiting: deque[Future[T]] = deque()
    try:
        for request in requests:
            waiting.append(submit(request))
            while len(waiting) >= places or (waiting and waiting[0].done()):
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        for future in waiting:
            future.cancel()
