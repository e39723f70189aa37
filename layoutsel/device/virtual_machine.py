"""TVM's modules and virtual machine, and waiting for devices, without TVM's Python package."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import tvm_ffi

from layoutsel.device.turns import Turn
from tvm_passes import cuda
from tvm_passes.devices import DEVICE_TYPES, HOST_DEVICE, DeviceId

CUDA = "cuda"
POOLED_ALLOCATOR = 2
"""Of TVM's virtual machine: keeps what a run has freed for the next one."""

_loading = Turn("loaded a model", fork_waits_s=10.0)
"""Held while the dynamic linker and TVM's runtime hold locks of their own."""


def load_library(file: Path, devices: Iterable[DeviceId]) -> tvm_ffi.Module:
    """The module in a shared library that was built for `devices`; CUDA's code in it is PTX, which TVM alone does not take."""
    is_cuda = any(device.kind == CUDA for device in devices)
    hook = cuda.taking_ptx() if is_cuda else nullcontext()
    with _loading, hook, _spelled(file) as name:
        return tvm_ffi.load_module(name)


@contextmanager
def _spelled(file: Path) -> Iterator[str]:
    """A name of `file` that TVM can take: its own, or where that is no text, that of a link for the time being."""
    name = str(file.resolve())
    try:
        name.encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory(prefix="layoutsel-") as folder:
            link = Path(folder) / "model.so"
            link.symlink_to(file.resolve())
            yield str(link)
    else:
        yield name


def virtual_machine(
    module: tvm_ffi.Module, devices: Sequence[DeviceId] = (HOST_DEVICE,)
) -> tvm_ffi.Module:
    """TVM's virtual machine for `module`.

    Parameters
    ----------
    devices
        Devices that it runs on, in the module's own order.
    """
    # The machine takes the last device for the host.
    wanted = [*devices, HOST_DEVICE] if devices[-1] != HOST_DEVICE else devices
    with _loading:
        machine = module["vm_load_executable"]()
        machine["vm_initialization"](
            *itertools.chain.from_iterable(
                (DEVICE_TYPES[one.target_kind], one.index, POOLED_ALLOCATOR) for one in wanted
            )
        )
    return machine


def synchronise(devices: Iterable[DeviceId]) -> None:
    """Wait for what runs on devices other than the host."""
    for device in devices:
        if not device.is_host:
            wait = tvm_ffi.get_global_func("runtime.Device_StreamSync")
            wait(tvm_ffi.device(device.kind, device.index), 0)
