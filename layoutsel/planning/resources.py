"""Resources that a step of a plan occupies: cores, devices, links, interfaces.

A step computes a sub-graph or crosses a boundary. It occupies some resources, each for a time. Its
result may be available only after the last of them is free: that is pure delay, such as the latency
of a link. A :class:`ResourceModel` defines this for every step; schedules and bounds need no other
facts about machines. Orders belong to schedules, prices to cost models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Resources of one step, and the time for which it occupies each."""

    busy_us: Mapping[str, float]
    """Time of occupation from the start of the step, by resource, microseconds."""
    delay_us: float = 0.0
    """Time from the release of the last resource until the result is available, microseconds."""
    called_by: str | None = None
    """Resource that starts the step and must be free for that; None if the step starts by itself.

    The step occupies its caller only if `busy_us` contains it: a host that calls a device continues
    at once.
    """

    duration_us: float = field(init=False)
    """Time from the start of the step until its result is available, microseconds."""
    blocks_caller: bool = field(init=False)
    """True if the step occupies its caller."""

    def __post_init__(self) -> None:
        longest_us = max(self.busy_us.values(), default=0.0)
        object.__setattr__(self, "duration_us", longest_us + self.delay_us)
        object.__setattr__(self, "blocks_caller", self.called_by in self.busy_us)


def in_turn(steps: Sequence[Resources]) -> Resources:
    """Join steps that follow each other: their work on each resource, and their whole duration."""
    busy_us: dict[str, float] = {}
    for step in steps:
        for name, us in step.busy_us.items():
            busy_us[name] = busy_us.get(name, 0.0) + us
    whole_us = sum(step.duration_us for step in steps)
    return Resources(busy_us=busy_us, delay_us=whole_us - max(busy_us.values(), default=0.0))


class ResourceModel(Protocol):
    """Resources of every step on one or several machines.

    Places are named by memories, as in :class:`~layoutsel.cost.place.Place`. Times are prices.
    """

    @property
    def receivers_transform(self) -> bool:
        """True if tensors travel as they were made, and are transformed where they arrive."""
        ...

    def compute(self, unit: str, memory: str, us: float) -> Resources:
        """Return the resources of a sub-graph of `us` microseconds on a unit of `memory`."""
        ...

    def boundary(self, kind: str, source: str, destination: str, us: float) -> Sequence[Resources]:
        """Return the resources of a boundary of `us` microseconds between two memories, or in one.

        `kind` is one of :data:`~layoutsel.cost.tensor.KINDS`. The boundary is one step, or several
        that follow each other, together as long as `us` plus their delays.
        """
        ...


@dataclass(frozen=True)
class HostDriven:
    """One host thread that makes all calls, and devices with their own memory.

    The host waits for its own sub-graphs. A device computes its sub-graphs in the order of the
    calls, while the host continues. A copy occupies the host and the devices at both ends. Layouts
    are transformed where the tensor stays, and by the host if it moves.
    """

    host: str
    """Name of the host's memory, and of its thread as a resource."""
    receivers_transform: ClassVar[bool] = False
    """False: the host transforms before it copies to a device."""

    def compute(self, unit: str, memory: str, us: float) -> Resources:
        """Occupy the processor of the unit's memory."""
        del unit  # units of one memory share its processor
        return self._of((memory,), us)

    def boundary(self, kind: str, source: str, destination: str, us: float) -> Sequence[Resources]:
        """Occupy the participating processors; between memories, the host always takes part."""
        if kind == "copy":
            return [self._of((self.host, source, destination), us)]
        if source == destination:
            return [self._of((source,), us)]
        if self.host in (source, destination):
            return [self._of((self.host,), us)]
        return [self._of((self.host, source), us)]

    def _of(self, names: tuple[str, ...], us: float) -> Resources:
        return Resources(busy_us=dict.fromkeys(names, us), called_by=self.host)
