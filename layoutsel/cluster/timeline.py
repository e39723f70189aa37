"""Traces of running distributions: one row for each node and each direction of a link."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

from layoutsel import documents
from layoutsel.cluster.events import ClusterEvent, RequestAnswered, SegmentRan
from layoutsel.runtime.chrome_trace import complete, metadata

MOST_EVENTS = 100_000
"""Number of events that a timeline keeps; the oldest ones go first."""
_REQUESTS = 0
"""Row of the requests."""


class Timeline:
    """Keeps events of a controller; an observer.

    The clock is that of the origin. A run is placed so that it ends when the origin knew of its
    end: half a round trip late.
    """

    def __init__(self) -> None:
        self._events: deque[ClusterEvent] = deque(maxlen=MOST_EVENTS)

    def __call__(self, event: ClusterEvent) -> None:
        """Take an event."""
        self._events.append(event)

    @property
    def events(self) -> tuple[ClusterEvent, ...]:
        """Kept events, in order of their ends."""
        return tuple(self._events)

    def save(self, path: Path, name: str) -> None:
        """Write a Chrome trace; raises :class:`WriteError` if that fails.

        Parameters
        ----------
        path
            File to write.
        name
            Name of the model.
        """
        documents.save(self.document(name), path)

    def document(self, name: str) -> dict[str, Any]:
        """Make a document in the Trace Event Format (JSON object form, complete events)."""
        events = list(self._events)
        titles = sorted({_row(one) for one in events if not isinstance(one, RequestAnswered)})
        rows = {title: number for number, title in enumerate(titles, start=1)}
        begin_s = min((_start_s(one) for one in events), default=0.0)
        entries = [metadata("process_name", 0, name), metadata("thread_name", 0, "requests")]
        entries += [metadata("thread_name", row, title) for title, row in rows.items()]
        for one in events:
            row = _REQUESTS if isinstance(one, RequestAnswered) else rows[_row(one)]
            entries.append(_entry(one, row, 1e6 * (_start_s(one) - begin_s)))
        return {"traceEvents": entries, "displayTimeUnit": "ms", "otherData": {"model": name}}


def _row(event: ClusterEvent) -> str:
    if isinstance(event, SegmentRan):
        return f"node {event.segment.node}"
    assert not isinstance(event, RequestAnswered)
    return f"link {event.source} → {event.destination}"


def _start_s(event: ClusterEvent) -> float:
    if isinstance(event, SegmentRan):
        return event.end_s - 1e-6 * (event.times.total_us - event.times.queue_us)
    return event.start_s


def _entry(event: ClusterEvent, row: int, start_us: float) -> dict[str, Any]:
    shared: dict[str, Any] = {"request": event.request}
    if isinstance(event, RequestAnswered):
        arguments = shared | {"attempts": event.attempts}
        return complete(f"request {event.request}", "run", row, start_us, event.us, arguments)
    if isinstance(event, SegmentRan):
        times, segment = event.times, event.segment
        arguments = shared | {
            "epoch": event.epoch,
            "atoms": list(segment.atoms),
            "predicted_us": segment.us,
            "queue_us": times.queue_us,
            "unpack_us": times.unpack_us,
            "compute_us": times.compute_us,
            "pack_us": times.pack_us,
        }
        own_us = times.total_us - times.queue_us
        return complete(segment.id, "segment", row, start_us, own_us, arguments)
    arguments = shared | {"tensors": list(event.tensors), "bytes": event.bytes}
    return complete(", ".join(event.tensors), "transfer", row, start_us, event.us, arguments)
