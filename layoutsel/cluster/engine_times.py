"""Time that an engine takes by itself: for requests, for segments, and in addition to messages.

Processors that have waited are slower at first: their caches hold the work of others, and their
clock rests. The times of an engine therefore depend on how long nodes wait between two runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields

import numpy as np

from layoutsel import documents
from layoutsel.device.machine import this_machine
from layoutsel.documents.saved import Fault


@dataclass(frozen=True, kw_only=True)
class EngineTimes:
    """Time of an engine for what it does in addition to computing and sending."""

    request_us: float = field(default=0.0, metadata=documents.OPTIONAL)
    """Time of a request with its first segment, if nothing is sent, microseconds."""
    call_us: float = field(default=0.0, metadata=documents.OPTIONAL)
    """Time to call the code of a segment, microseconds; a busy node takes longer."""
    segment_us: float = field(default=0.0, metadata=documents.OPTIONAL)
    """Time of each further segment: its start once its inputs are there, and its end."""
    message_us: float = field(default=0.0, metadata=documents.OPTIONAL)
    """Time of a message that its route does not take, microseconds."""
    wake_us: float = field(default=0.0, metadata=documents.OPTIONAL)
    """Additional time of the next call on a node that has sent a tensor and waited."""

    def faults(self) -> Iterator[Fault]:
        """Yield the values that are no times."""
        for one in fields(self):
            value = getattr(self, one.name)
            if not 0 <= value < np.inf:
                yield f"$.{one.name}", f"{value:g}", "0 or more"


_PROBE = 3
"""Version of the probe that measures them."""
FREE = EngineTimes()
"""An engine that takes no time."""


@dataclass(frozen=True, kw_only=True)
class EngineProfile:
    """Times of an engine by the time for which nodes wait between two runs."""

    waits_us: tuple[float, ...] = (0.0,)
    """Waiting times, ascending, microseconds."""
    times: tuple[EngineTimes, ...] = (FREE,)
    """Times of the engine at each."""
    bare_us: float = 0.0
    """Time of a call of code without an engine, microseconds."""
    others_busy: float = 0.0
    """Share of the processors that other work took during the measurement, 0 to 1."""

    def at(self, wait_us: float) -> EngineTimes:
        """Times at a waiting time: between two known ones a line, beyond them the nearest."""
        names = [one.name for one in fields(EngineTimes)]
        known = {name: [getattr(one, name) for one in self.times] for name in names}
        return EngineTimes(
            **{name: float(np.interp(wait_us, self.waits_us, known[name])) for name in names}
        )


def kept_name(engine: str) -> str:
    """Name under which the times of an engine on this machine are kept."""
    return f"engine-{engine}-{_PROBE}-{this_machine().fingerprint}"
