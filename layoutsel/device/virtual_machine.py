"""TVM's modules and virtual machine, and device synchronisation, without TVM's Python package."""

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
"""Kind of NVIDIA's devices."""
POOLED_ALLOCATOR = 2
"""TVM's number of the allocator that keeps freed memory for the next run."""

_loading = Turn("loaded a model", fork_waits_s=10.0)
"""Lock for loading, as the dynamic linker and TVM's runtime hold locks meanwhile."""


def load_library(file: Path, devices: Iterable[DeviceId]) -> tvm_ffi.Module:
    """Load the module of a shared library that was built for `devices`."""
    # CUDA code in the library is PTX, which TVM alone does not load.
    is_cuda = any(device.kind == CUDA for device in devices)
    hook = cuda.taking_ptx() if is_cuda else nullcontext()
    with _loading, hook, _spelled(file) as name:
        return tvm_ffi.load_module(name)


@contextmanager
def _spelled(file: Path) -> Iterator[str]:
    """Name of `file` as valid text: its own, or that of a temporary link."""
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
    """Make a virtual machine for `module`.

    Parameters
    ----------
    module
        A loaded module.
    devices
        Devices, in the module's numbering.
    """
    # TVM's machine treats the last device as the host.
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
    """Wait until devices other than the host have finished their work."""
    for device in devices:
        if not device.is_host:
            wait = tvm_ffi.get_global_func("runtime.Device_StreamSync")
            wait(tvm_ffi.device(device.kind, device.index), 0)
