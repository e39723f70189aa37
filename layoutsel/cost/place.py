"""Where and how a tensor lies: shared by cost models and planning problems."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from tvm_passes.decision import placed_unit
from tvm_passes.devices import HOST_DEVICE, DeviceId

HOST = "host"
"""The pseudo unit that hands over the model's inputs and takes its outputs; also the name of the host's memory."""

PLAIN = "NCHW"
"""The layout of the model's inputs and outputs."""


class Place(NamedTuple):
    """How and where a tensor lies, or is wanted."""

    layout: str = PLAIN
    unit: str = HOST
    device: DeviceId = HOST_DEVICE

    @property
    def memory(self) -> str:
        """Name of the device's memory; see :func:`memory_name`."""
        return memory_name(self.device)

    @property
    def placed_unit(self) -> str:
        """The unit as decisions write it, such as ``cuda@1``."""
        return placed_unit(self.unit, self.device.node, self.device.index)


OUTSIDE = Place()
"""Where the model's inputs and outputs lie."""


@cache
def memory_name(device: DeviceId) -> str:
    """Name the memory of a device: ``host``, ``cuda``, ``cuda/1`` or ``edge0/cpu/0``."""
    if device == HOST_DEVICE:
        return HOST
    return str(device) if device.node or device.is_host else device.target_name
