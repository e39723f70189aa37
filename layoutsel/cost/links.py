"""Links between the memories of a machine's devices: the prices of copies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tvm_passes.devices import HOST_DEVICE, DeviceId
from tvm_passes.errors import LayoutselError


@dataclass(frozen=True, kw_only=True)
class Link:
    """Direct way of tensors from the memory of one device to that of another."""

    source: DeviceId
    destination: DeviceId
    latency_us: float
    """Time of the smallest copy, microseconds."""
    gbps: float
    """GB/s of a large copy, beyond the latency."""

    def __post_init__(self) -> None:
        if not min(self.latency_us, self.gbps) > 0 or self.source == self.destination:
            raise LayoutselError(
                f"not a link: got {self}; expected two devices, and a latency and a rate above 0"
            )

    def __str__(self) -> str:
        return f"{self.source} > {self.destination} {self.gbps:,.1f} GB/s and {self.latency_us:,.1f} µs"

    def copy_us(self, nbytes: float) -> float:
        """Microseconds of copying `nbytes`."""
        return self.latency_us + nbytes / self.gbps * 1e-3


@dataclass(frozen=True)
class Links:
    """Table of links by source and destination."""

    table: Mapping[tuple[DeviceId, DeviceId], Link] = field(default_factory=dict)

    @classmethod
    def of(cls, links: Iterable[Link]) -> Links:
        """Make the table; of two links for one pair, the last counts."""
        return cls({(link.source, link.destination): link for link in links})

    def way(self, source: DeviceId, destination: DeviceId) -> tuple[Link, ...]:
        """List the links that a copy takes: the direct one, else those by way of the host; empty if there are none."""
        direct = self.table.get((source, destination))
        if direct is not None:
            return (direct,)
        host = HOST_DEVICE._replace(node=source.node)
        hops = [self.table.get(pair) for pair in ((source, host), (host, destination))]
        return tuple(hop for hop in hops if hop is not None) if all(hops) else ()

    def copy_us(self, source: DeviceId, destination: DeviceId, nbytes: float) -> float | None:
        """Microseconds of copying `nbytes`; None if the table has no way."""
        way = self.way(source, destination)
        return sum(link.copy_us(nbytes) for link in way) if way else None


def both_ways(
    one: DeviceId, other: DeviceId, *, latency_us: float, gbps: float
) -> tuple[Link, Link]:
    """Make equal links in both directions."""
    return (
        Link(source=one, destination=other, latency_us=latency_us, gbps=gbps),
        Link(source=other, destination=one, latency_us=latency_us, gbps=gbps),
    )


def missing_links(
    devices: Iterable[DeviceId], links: Iterable[Link]
) -> Iterator[tuple[DeviceId, DeviceId]]:
    """Yield the pairs of the host and a device that have no link."""
    known = {(link.source, link.destination) for link in links}
    for device in devices:
        for pair in ((HOST_DEVICE, device), (device, HOST_DEVICE)):
            if pair not in known:
                yield pair
