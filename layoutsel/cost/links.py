"""Links between the memories of a machine's devices, with the costs of copies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tvm_passes.devices import HOST_DEVICE, DeviceId
from tvm_passes.errors import LayoutselError


@dataclass(frozen=True, kw_only=True)
class DeviceLink:
    """Direct connection from the memory of one device to that of another."""

    source: DeviceId
    """Device to copy from."""
    destination: DeviceId
    """Device to copy to."""
    latency_us: float
    """Time of the smallest copy, microseconds."""
    gbps: float
    """Bandwidth of a large copy, latency excluded, GB/s."""

    def __post_init__(self) -> None:
        if not min(self.latency_us, self.gbps) > 0 or self.source == self.destination:
            raise LayoutselError(
                f"not a link: got {self}; expected two devices, and a latency and a rate above 0"
            )

    def __str__(self) -> str:
        return (
            f"{self.source} > {self.destination} {self.gbps:,.1f} GB/s "
            f"and {self.latency_us:,.1f} µs"
        )

    def copy_us(self, nbytes: float) -> float:
        """Compute the time of copying `nbytes`, microseconds."""
        return self.latency_us + nbytes / self.gbps * 1e-3


@dataclass(frozen=True)
class Links:
    """Table of links by source and destination."""

    table: Mapping[tuple[DeviceId, DeviceId], DeviceLink] = field(default_factory=dict)
    """Link by (source, destination)."""

    @classmethod
    def of(cls, links: Iterable[DeviceLink]) -> Links:
        """Make a table of links; of several links for one pair, the last one holds."""
        return cls({(link.source, link.destination): link for link in links})

    def way(self, source: DeviceId, destination: DeviceId) -> tuple[DeviceLink, ...]:
        """List the links of a copy: the direct link, else the two by way of the host, else none."""
        direct = self.table.get((source, destination))
        if direct is not None:
            return (direct,)
        host = HOST_DEVICE._replace(node=source.node)
        hops = [self.table.get(pair) for pair in ((source, host), (host, destination))]
        return tuple(hop for hop in hops if hop is not None) if all(hops) else ()

    def copy_us(self, source: DeviceId, destination: DeviceId, nbytes: float) -> float | None:
        """Compute the time of copying `nbytes`, microseconds; None without a connection."""
        way = self.way(source, destination)
        return sum(link.copy_us(nbytes) for link in way) if way else None


def missing_links(
    devices: Iterable[DeviceId], links: Iterable[DeviceLink]
) -> Iterator[tuple[DeviceId, DeviceId]]:
    """Yield the pairs of the host and a device, in either direction, that have no link."""
    known = {(link.source, link.destination) for link in links}
    for device in devices:
        for pair in ((HOST_DEVICE, device), (device, HOST_DEVICE)):
            if pair not in known:
                yield pair
