"""Targets of generated device code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tvm
from tvm.target import Target

from tvm_passes import cuda, opencl
from tvm_passes.devices import DeviceId
from tvm_passes.errors import UnitUnavailable
from tvm_passes.targets import cross_target


def device_target(kind: str, host: Target | None = None, index: int = 0) -> Target:
    """Return the target of a device of this machine, or of the machine that is compiled for."""
    other = cross_target()
    name = DeviceId.of_target(kind, index).target_name
    described = other.devices[name].export() if other else _DESCRIBED[kind](index)
    return Target(described, host=host) if host else Target(described)


def compute_capability(target: Target) -> int:
    """Return the capability of a CUDA target as a number: 80 for ``sm_80``, 90 for ``sm_90a``.

    0 if the target does not state it.
    """
    digits = "".join(filter(str.isdigit, str(target.attrs.get("arch", ""))))
    return int(digits) if digits else 0


def _opencl(index: int) -> dict[str, Any]:
    """Describe an OpenCL device by TVM's default limits, or by its own if they are lower."""
    if reason := opencl.unavailable():
        raise UnitUnavailable(f"unit 'opencl' cannot be used here: {reason}")
    usual = Target("opencl").attrs
    device = tvm.opencl(index)
    threads = min(int(usual["max_num_threads"]), device.max_threads_per_block)
    shared = min(int(usual["max_shared_memory_per_block"]), device.max_shared_memory_per_block)
    return {
        "kind": "opencl",
        "max_num_threads": threads,
        "max_threads_per_block": threads,
        "max_shared_memory_per_block": shared,
    }


def _cuda(index: int) -> dict[str, Any]:
    """Describe a CUDA device as TVM detects it."""
    if reason := cuda.unavailable():
        raise UnitUnavailable(f"unit 'cuda' cannot be used here: {reason}")
    return Target.from_device(tvm.cuda(index)).export()


_DESCRIBED: Mapping[str, Callable[[int], dict[str, Any]]] = {"opencl": _opencl, "cuda": _cuda}
"""Description of a device of this machine in TVM's format, by kind, as a function of its index."""
