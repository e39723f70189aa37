"""Publication of a controller's events to its observers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from layoutsel.cluster.attempt import Attempt, ClusterRequest, SegmentTask
from layoutsel.cluster.engine import RunTimes
from layoutsel.cluster.events import (
    ClusterEvent,
    Observer,
    RequestAnswered,
    SegmentRan,
    TensorsSent,
)


class EventPublisher:
    """Tells all observers what ended at the present time.

    Parameters
    ----------
    observers
        Functions that are told of all events.
    origin
        Node that holds the inputs and takes the results.
    """

    def __init__(self, observers: Sequence[Observer], origin: str) -> None:
        self._observers, self._origin = tuple(observers), origin

    def ran(self, task: SegmentTask, times: RunTimes) -> None:
        """Publish the end of a segment's run, and the transfers of its inputs before it."""
        attempt, segment = task.attempt, task.segment
        ran = SegmentRan(
            request=attempt.request.number,
            epoch=attempt.epoch.number,
            segment=segment,
            end_s=time.monotonic(),
            times=times,
        )
        self._tell(ran)
        us = 1e6 * (ran.end_s - task.began_s) - times.total_us
        self._sent(attempt, segment.inputs, segment.node, task.began_s, us)

    def fetched(self, attempt: Attempt, names: Iterable[str], began_s: float) -> None:
        """Publish the transfers of the model's outputs."""
        us = 1e6 * (time.monotonic() - began_s)
        self._sent(attempt, names, self._origin, began_s, us)

    def answered(self, request: ClusterRequest) -> None:
        """Publish the answer to a request."""
        us = 1e6 * (time.monotonic() - request.start_s)
        self._tell(
            RequestAnswered(
                request=request.number, start_s=request.start_s, us=us, attempts=request.attempts
            )
        )

    def _sent(
        self, attempt: Attempt, names: Iterable[str], node: str, start_s: float, us: float
    ) -> None:
        for source, tensors in attempt.received(names, node, self._origin).items():
            self._tell(
                TensorsSent(
                    request=attempt.request.number,
                    source=source,
                    destination=node,
                    tensors=tuple(tensors),
                    bytes=attempt.bytes_of(tensors),
                    start_s=start_s,
                    us=max(0.0, us),
                )
            )

    def _tell(self, event: ClusterEvent) -> None:
        for observer in self._observers:
            observer(event)
