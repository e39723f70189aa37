"""The targets that devices' code is generated for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tvm
from tvm.target import Target

from tvm_passes import cuda, opencl
from tvm_passes.errors import UnitUnavailable
from tvm_passes.targets import cross_target


def device_target(kind: str, host: Target | None = None) -> Target:
    """The target of the first device of a kind; of another machine's where code is generated for one."""
    other = cross_target()
    described = other.devices[kind].export() if other else _DESCRIBED[kind]()
    return Target(described, host=host) if host else Target(described)


def compute_capability(target: Target) -> int:
    """What a CUDA target can, as a number: 80 for ``sm_80``, 90 for ``sm_90a``; 0 where it does not say."""
    digits = "".join(filter(str.isdigit, str(target.attrs.get("arch", ""))))
    return int(digits) if digits else 0


def _opencl() -> dict[str, Any]:
    """TVM's own limits, or the device's where those are lower."""
    if reason := opencl.unavailable():
        raise UnitUnavailable(f"unit 'opencl' cannot be used here: {reason}")
    usual = Target("opencl").attrs
    device = tvm.opencl(0)
    threads = min(int(usual["max_num_threads"]), device.max_threads_per_block)
    shared = min(int(usual["max_shared_memory_per_block"]), device.max_shared_memory_per_block)
    return {
        "kind": "opencl",
        "max_num_threads": threads,
        "max_threads_per_block": threads,
        "max_shared_memory_per_block": shared,
    }


def _cuda() -> dict[str, Any]:
    if reason := cuda.unavailable():
        raise UnitUnavailable(f"unit 'cuda' cannot be used here: {reason}")
    return Target.from_device(tvm.cuda(0)).export()


_DESCRIBED: Mapping[str, Callable[[], dict[str, Any]]] = {"opencl": _opencl, "cuda": _cuda}
"""What a device of this machine can, as TVM describes targets."""
