"""Links between devices, for tests."""

from __future__ import annotations

from layoutsel.cost.links import DeviceLink
from tvm_passes.devices import DeviceId


def both_ways(
    one: DeviceId, other: DeviceId, *, latency_us: float, gbps: float
) -> tuple[DeviceLink, DeviceLink]:
    """Equal links in both directions."""
    return (
        DeviceLink(source=one, destination=other, latency_us=latency_us, gbps=gbps),
        DeviceLink(source=other, destination=one, latency_us=latency_us, gbps=gbps),
    )
