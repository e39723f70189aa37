"""TVM's modules and virtual machine, and waiting for devices, without TVM's Python package."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import tvm_ffi

from layoutsel.device.turns import Turn
from tvm_passes import cuda
from tvm_passes.devices import DEVICE_TYPES, HOST

CUDA = "cuda"
POOLED_ALLOCATOR = 2
"""Of TVM's virtual machine: keeps what a run has freed for the next one."""

_loading = Turn("loaded a model", fork_waits_s=10.0)
"""Held while the dynamic linker and TVM's runtime hold locks of their own."""


def load_library(file: Path, devices: Collection[str]) -> tvm_ffi.Module:
    """The module in a shared library that was built for `devices`; CUDA's code in it is PTX, which TVM alone does not take."""
    hook = cuda.taking_ptx() if CUDA in devices else nullcontext()
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


def virtual_machine(module: tvm_ffi.Module, devices: Sequence[str] = (HOST,)) -> tvm_ffi.Module:
    """TVM's virtual machine for `module`.

    Parameters
    ----------
    devices
        Kinds of the devices that it runs on, in the module's own order.
    """
    # The machine takes the last device for the host.
    wanted = [*devices, HOST] if devices[-1] != HOST else devices
    with _loading:
        machine = module["vm_load_executable"]()
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
