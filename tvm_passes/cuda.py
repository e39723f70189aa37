"""The run time of the compute unit ``cuda``, which TVM's wheel brings: it needs the driver of a device.

Importing this does not import TVM.
"""

from __future__ import annotations

import ctypes
import functools
import sys

_CUDA = 2
"""DLPack's number of the device type."""
_EXIST, _NAME, _COMPUTE_VERSION, _DRIVER, _MEMORY = 0, 5, 4, 12, 14
"""TVM's numbers of attributes."""


@functools.cache
def available() -> str | None:
    """Load the run time; None where that worked, else the reason why not."""
    from tvm_passes.runtime_library import load_tvm_runtime, runtime_library

    load_tvm_runtime()
    if "tvm" not in sys.modules:  # which has tried, but does not say what was wrong
        return _load(str(runtime_library("libtvm_runtime_cuda.so")))
    import tvm_ffi

    if tvm_ffi.get_global_func("device_api.cuda", allow_missing=True) is not None:
        return None
    return _load(str(runtime_library("libtvm_runtime_cuda.so")))


def _load(library: str) -> str | None:
    try:
        ctypes.CDLL(library)
    except OSError as error:
        return f"TVM's run time for CUDA cannot be loaded ({error}): install NVIDIA's driver and CUDA 13's libcudart"
    return None


def unavailable() -> str | None:
    """Why no CUDA device can be used on this machine; None where one can."""
    reason = available()
    if reason is None and not _attribute(_EXIST):
        return "the driver finds no device"
    return reason


def identity() -> str:
    """All that measurements on the first device depend on: its name, what it can, its memory and its driver."""
    name, version, memory, driver = map(_attribute, (_NAME, _COMPUTE_VERSION, _MEMORY, _DRIVER))
    return f"{name}, compute capability {version}, {memory} bytes, driver {driver}"


def _attribute(number: int) -> object:
    import tvm_ffi

    return tvm_ffi.get_global_func("runtime.GetDeviceAttr")(_CUDA, 0, number)
