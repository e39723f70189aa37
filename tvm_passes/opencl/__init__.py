"""The compute unit ``opencl``: TVM's schedules for GPUs, on the run time that TVM's wheel lacks.

The run time serves every user of TVM, whether of these passes or not. Importing this package does not load TVM; the
functions below do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tvm

    from tvm_passes.decision import Decision
    from tvm_passes.errors import Decline

__all__ = ["identity", "lower", "supports", "unavailable"]


def unavailable() -> str | None:
    """Why no OpenCL device can be used on this machine; None where one can."""
    from tvm_passes.opencl import plugin

    reason = plugin.available()
    if reason is None and not plugin.has_device():
        return "no driver finds a device; install one (Debian: pocl-opencl-icd runs on any CPU)"
    return reason


def supports(function: Any, decision: Decision) -> Decline | None:
    """Why `decision` is not possible for a stage-1 sub-graph function; None where it is."""
    from tvm_passes.gpu.legality import supports as check

    return check(function, decision, unavailable())


def identity() -> str:
    """Platform, device and driver of the first device, with their versions."""
    from tvm_passes.opencl import plugin

    return plugin.identity()


def lower(host: tvm.target.Target) -> tvm.transform.Pass:
    """The pass that gives its sub-graphs their kernels."""
    import tvm

    from tvm_passes.gpu.lower import LowerGpu

    # TVM's own limits, or the device's where those are lower.
    usual = tvm.target.Target("opencl").attrs
    device = tvm.opencl(0)
    threads = min(int(usual["max_num_threads"]), device.max_threads_per_block)
    shared = min(int(usual["max_shared_memory_per_block"]), device.max_shared_memory_per_block)
    config = {
        "kind": "opencl",
        "max_num_threads": threads,
        "max_threads_per_block": threads,
        "max_shared_memory_per_block": shared,
    }
    return LowerGpu("opencl", tvm.target.Target(config, host=host))
