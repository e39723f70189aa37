"""TVM's virtual machine, and waiting for devices, without TVM's Python package."""

from __future__ import annotations

from collections.abc import Sequence

import tvm_ffi

from tvm_passes.devices import DEVICE_TYPES, HOST

POOLED_ALLOCATOR = 2
"""Of TVM's virtual machine: keeps what a run has freed for the next one."""


def virtual_machine(module: tvm_ffi.Module, devices: Sequence[str] = (HOST,)) -> tvm_ffi.Module:
    """TVM's virtual machine for `module`.

    Parameters
    ----------
    devices
        Kinds of the devices that it runs on, in the module's own order.
    """
    machine = module["vm_load_executable"]()
    # The machine takes the last device for the host.
    wanted = [*devices, HOST] if devices[-1] != HOST else devices
    machine["vm_initialization"](
        *(number for kind in wanted for number in (DEVICE_TYPES[kind], 0, POOLED_ALLOCATOR))
    )
    return machine


def synchronise(devices: Sequence[str]) -> None:
    """Wait for what runs on devices beside the host."""
    for kind in devices:
        if kind != HOST:
            wait = tvm_ffi.get_global_func("runtime.Device_StreamSync")
            wait(tvm_ffi.device(kind, 0), 0)
