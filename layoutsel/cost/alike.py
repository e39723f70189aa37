"""Groups of identical devices: measurements of one device hold for its whole group."""

from __future__ import annotations

from collections.abc import Mapping

from tvm_passes.devices import DeviceId


def first_alike(identities: Mapping[DeviceId, str]) -> dict[DeviceId, DeviceId]:
    """Map each device to the first one of its kind and identity."""
    firsts: dict[tuple[str, str], DeviceId] = {}
    for device in sorted(identities):
        firsts.setdefault((device.kind, identities[device]), device)
    return {device: firsts[device.kind, name] for device, name in identities.items()}


def pair_alike(
    source: DeviceId, destination: DeviceId, alike: Mapping[DeviceId, DeviceId]
) -> tuple[DeviceId, DeviceId]:
    """Choose the pair of devices whose measured copies hold for copies from one to another.

    The first identical device of each stands for it. If both are identical, the first two of their
    group are measured. `alike` is a result of :func:`first_alike`; a device that it lacks, such as
    the host, stands for itself.
    """
    ends = alike.get(source, source), alike.get(destination, destination)
    if ends[0] != ends[1]:
        return ends
    second = min(d for d, first in alike.items() if first == ends[0] != d)
    return ends[0], second
