"""Resources that a step of a plan occupies: cores, devices, links, interfaces.

A step computes a sub-graph or crosses a boundary. It occupies some resources, each for a time, and its result may arrive
later than the last of them is free: that is pure delay, such as the latency of a link. A :class:`ResourceModel` says so
for every step; schedules and bounds read nothing else about machines. Orders belong to schedules, prices to cost models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Resources of one step, and the time for which it occupies each."""

    busy_us: Mapping[str, float]
    """Microseconds for which each resource is occupied, by name, counted from the start of the step."""
    delay_us: float = 0.0
    """Microseconds from the release of the last resource until the result is available."""
    called_by: str | None = None
    """Resource that starts the step, and must be free for that; None if the step starts by itself.

    The step occupies its caller only if `busy_us` names it: a host that calls a device goes on at once.
    """

    duration_us: float = field(init=False)
    """Microseconds from the start of the step until its result is available."""
    blocks_caller: bool = field(init=False)
    """True if the caller is occupied by the step."""

    def __post_init__(self) -> None:
        longest_us = max(self.busy_us.values(), default=0.0)
        object.__setattr__(self, "duration_us", longest_us + self.delay_us)
        object.__setattr__(self, "blocks_caller", self.called_by in self.busy_us)


class ResourceModel(Protocol):
    """Resources of every step on one machine, or on several.

    Places are named by memories, as in :class:`~layoutsel.cost.place.Place`. Times are the priced ones.
    """

    def compute(self, unit: str, memory: str, us: float) -> Resources:
        """Resources of a sub-graph of `us` microseconds on a unit that computes in `memory`."""
        ...

    def boundary(self, kind: str, source: str, destination: str, us: float) -> Resources:
        """Resources of a boundary of `us` microseconds between two memories, which may be the same.

        `kind` is one of :data:`~layoutsel.cost.tensor.KINDS`.
        """
        ...


@dataclass(frozen=True)
class HostDriven:
    """One host thread that makes all calls, and devices with a memory of their own.

    The host waits for its own sub-graphs. A device computes its sub-graphs in the order of the calls, while the host goes
    on. A copy occupies the host and the devices at both ends. Layouts are transformed where the tensor stays; by the host
    where it moves.
    """

    host: str
    """Name of the host: of its memory, and of its thread as a resource."""

    def compute(self, unit: str, memory: str, us: float) -> Resources:
        """Occupy the processor of the unit's memory."""
        del unit  # units of one memory share its processor
        return self._of((memory,), us)

    def boundary(self, kind: str, source: str, destination: str, us: float) -> Resources:
        """Occupy the processors that take part; the host in every boundary between two memories."""
        if kind == "copy":
            return self._of((self.host, source, destination), us)
        if source == destination:
            return self._of((source,), us)
        if self.host in (source, destination):
            return self._of((self.host,), us)
        return self._of((self.host, source), us)

    def _of(self, names: tuple[str, ...], us: float) -> Resources:
        return Resources(busy_us=dict.fromkeys(names, us), called_by=self.host)
