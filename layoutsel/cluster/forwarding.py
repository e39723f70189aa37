"""Results of one future passed on to others."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from layoutsel.errors import WorkerClosed

T = TypeVar("T")
CLOSED = "the engine was closed before the end of the run"
"""Message about work that an engine does not end any more."""


def forward(
    source: Future[T], take: Callable[[T], object], fail: Callable[[BaseException], object]
) -> None:
    """Give the result of `source` to `take`, or its error to `fail`, once there is one."""

    def end(ended: Future[T]) -> None:
        if ended.cancelled():
            fail(WorkerClosed(CLOSED))
        elif (error := ended.exception()) is not None:
            fail(error)
        else:
            take(ended.result())

    source.add_done_callback(end)
