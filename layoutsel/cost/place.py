"""Places of tensors: layout, unit and device; shared by cost models and planning problems."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from tvm_passes.decision import placed_unit
from tvm_passes.devices import HOST_DEVICE, DeviceId

HOST = "host"
"""Pseudo unit that supplies the model's inputs and takes its outputs; name of the host's memory."""

PLAIN = "NCHW"
"""Layout of the model's inputs and outputs."""


class Place(NamedTuple):
    """Layout, unit and device of a tensor, as it lies or as it is wanted."""

    layout: str = PLAIN
    """Layout of the tensor, as layouts are registered."""
    unit: str = HOST
    """Name of the compute unit, or :data:`HOST`."""
    device: DeviceId = HOST_DEVICE
    """Device whose memory holds the tensor."""

    @property
    def memory(self) -> str:
        """Name of the device's memory; see :func:`memory_name`."""
        return memory_name(self.device)

    @property
    def placed_unit(self) -> str:
        """Unit as written in decisions, such as ``cuda@1``."""
        return placed_unit(self.unit, self.device.node, self.device.index)


OUTSIDE = Place()
"""Place of the model's inputs and outputs."""


@cache
def memory_name(device: DeviceId) -> str:
    """Return the name of a device's memory: ``host``, ``cuda``, ``cuda/1`` or ``edge0/cpu/0``."""
    if device == HOST_DEVICE:
        return HOST
    return str(device) if device.node or device.is_host else device.target_name
