"""Runtime of the compute unit ``opencl``, which TVM's wheel lacks.

It serves every user of TVM, with or without these passes. Importing this package does not load TVM;
the functions below do.
"""

from __future__ import annotations

__all__ = ["identity", "unavailable"]


def unavailable() -> str | None:
    """Return the reason why no OpenCL device can be used on this machine, or None."""
    from tvm_passes.devices import ask_driver
    from tvm_passes.opencl import plugin

    reason = plugin.available() or ask_driver("opencl")
    if reason is None and not plugin.has_device():
        return "no driver finds a device; install one (Debian: pocl-opencl-icd runs on any CPU)"
    return reason


def identity(index: int = 0) -> str:
    """Return the platform, device and driver of a device, with their versions."""
    from tvm_passes.opencl import plugin

    return plugin.identity(index)
