"""Devices: their ids, and the kinds of targets; importing this does not import TVM."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import NamedTuple

from tvm_passes.errors import IllegalDevice

HOST = "llvm"
"""Kind of the host's target."""
DEVICE_TYPES: Mapping[str, int] = {HOST: 1, "cuda": 2, "opencl": 4}
"""DLPack's number of the device type, by kind of target."""
CPU = "cpu"
"""Kind of the host in ids of devices."""
NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
"""Pattern of a node's name, and of a kind."""
NUMBER = r"0|[1-9][0-9]{0,3}"
"""Pattern of an index."""
_ID = re.compile(rf"(?:({NAME})/)?({NAME})/({NUMBER})", re.ASCII)
"""Pattern of an id."""
_EXIST, _NAME = 0, 5
"""TVM's numbers of device attributes: existence and name."""
_asked_by: dict[str, int] = {}
"""Process that first asked the driver, by kind of device."""


class DeviceId(NamedTuple):
    """Id of a device, written ``cuda/1`` or ``edge0/cpu/0``."""

    node: str = ""
    """Name of the node; empty for this one."""
    kind: str = CPU
    """Kind of the device: ``cpu``, or the kind of its target, such as ``cuda``."""
    # A tuple, because planners hash and compare ids often; nobody searches it by tuple.index.
    index: int = 0  # type: ignore[assignment]
    """Index among the devices of this kind on the node, from 0."""

    def __str__(self) -> str:
        node = f"{self.node}/" if self.node else ""
        return f"{node}{self.kind}/{self.index}"

    @classmethod
    def parse(cls, text: str) -> DeviceId:
        """Read what :meth:`__str__` writes.

        Raises
        ------
        IllegalDevice
            If `text` names no device.
        """
        found = _ID.fullmatch(text)
        if found is None:
            raise IllegalDevice(
                f"cannot read device {text!r}: expected [node/]kind/index, such as cuda/1 or "
                f"edge0/cpu/0"
            )
        node, kind, index = found.groups()
        return cls(node or "", kind, int(index))

    @property
    def is_host(self) -> bool:
        """True for the CPU of a node, whose memory the host's code uses."""
        return self.kind == CPU

    @property
    def target_kind(self) -> str:
        """Kind of the device's target."""
        return HOST if self.kind == CPU else self.kind

    @classmethod
    def of_target(cls, kind: str, index: int = 0) -> DeviceId:
        """Make the id of a device of this node by the kind of its target."""
        return cls(kind=CPU if kind == HOST else kind, index=index)

    @property
    def target_name(self) -> str:
        """Name on its node in artifacts and machine files: ``llvm``, ``opencl``, ``opencl/1``."""
        return self.target_kind if self.index == 0 else f"{self.target_kind}/{self.index}"

    @classmethod
    def named(cls, text: str) -> DeviceId:
        """Read the result of :attr:`target_name`; raises :class:`IllegalDevice`."""
        kind, slash, index = text.partition("/")
        numbered = kind != HOST and re.fullmatch(f"(?!0){NUMBER}", index, re.ASCII) is not None
        if kind not in DEVICE_TYPES or (slash and not numbered):
            raise IllegalDevice(
                f"cannot read device {text!r}: expected one of {', '.join(DEVICE_TYPES)}, with an "
                f"index unless it is the first of its kind, such as opencl/1"
            )
        return cls.of_target(kind, int(index or 0))


HOST_DEVICE = DeviceId()
"""CPU of this node."""


def count_devices(kind: str) -> int:
    """Count the devices of a kind of target that TVM's runtime finds; this asks the driver."""
    import tvm_ffi

    attribute = tvm_ffi.get_global_func("runtime.GetDeviceAttr")
    found = (attribute(DEVICE_TYPES[kind], index, _EXIST) for index in itertools.count())
    return sum(1 for _ in itertools.takewhile(bool, found))


def device_name(device: DeviceId) -> str:
    """Return the driver's name of a device; empty if it has none."""
    import tvm_ffi

    attribute = tvm_ffi.get_global_func("runtime.GetDeviceAttr")
    return str(attribute(DEVICE_TYPES[device.target_kind], device.index, _NAME) or "")


def is_direct(source: DeviceId, destination: DeviceId) -> bool:
    """Return whether runtimes copy between two devices of a node in one step.

    They do if one is the host, or both are of one kind.
    """
    return source.kind == destination.kind or source.is_host or destination.is_host


def kernel_prefix(unit: str, index: int) -> str:
    """Return the name prefix of a device's kernels: ``opencl_`` or ``opencl_at1_``."""
    return f"{unit}_at{index}_" if index else f"{unit}_"


def unit_of_kernel(name: str) -> str:
    """Return the unit of a kernel, with its device as in decisions, such as ``opencl@1``."""
    unit, _, rest = name.partition("_")
    found = re.match(r"at(\d+)_", rest)
    return f"{unit}@{found[1]}" if found else unit


def kind_of_unit(unit: str) -> str:
    """Return the kind of a unit's devices; the CPU for an unknown unit."""
    target = _table_of_units()(unit)
    return CPU if target is None or target == HOST else target


@cache
def _table_of_units() -> Callable[[str], str | None]:
    """Return the table of target kinds by unit; its entries import this module."""
    found: Callable[[str], str | None] = import_module("tvm_passes.backends").target_kind
    return found


def ask_driver(kind: str) -> str | None:
    """Record that this process uses a kind of device's driver; return a reason against it, or None.

    A driver that was in use before this process was forked would never answer: a fork has none of
    the driver's threads.
    """
    if _asked_by.setdefault(kind, os.getpid()) == os.getpid():
        return None
    return (
        "its driver was in use before this process was forked, and works in no forked process; "
        "start the process with 'spawn', or use the device only after the fork"
    )
