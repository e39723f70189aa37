"""What the compute unit ``cuda`` needs beside TVM's wheel: the driver of a device to run, and a compiler to generate code.

Importing this does not import TVM.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator

_CUDA = 2
"""DLPack's number of the device type."""
_EXIST, _NAME, _COMPUTE_VERSION, _DRIVER, _MEMORY = 0, 5, 4, 12, 14
"""TVM's numbers of attributes."""
_COMPILER = "TVM_CUDA_COMPILE_MODE"
"""TVM's variable: ``nvrtc``, through the package cuda-bindings, or ``nvcc``."""


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
    return reason or uncompilable()


def uncompilable() -> str | None:
    """Why no code for CUDA can be generated on this machine; None where it can."""
    if _has_nvrtc() or shutil.which("nvcc"):
        return None
    return "there is no compiler for CUDA: install the package cuda-bindings, or nvcc (CUDA 12 or later) on PATH"


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Within it TVM compiles for CUDA with what is at hand, unless the user has said with what."""
    if _COMPILER in os.environ or _has_nvrtc():
        yield
        return
    os.environ[_COMPILER] = "nvcc"
    try:
        yield
    finally:
        os.environ.pop(_COMPILER, None)


def _has_nvrtc() -> bool:
    with contextlib.suppress(ModuleNotFoundError):
        return importlib.util.find_spec("cuda.bindings") is not None
    return False


def identity() -> str:
    """All that measurements on the first device depend on: its name, what it can, its memory and its driver."""
    name, version, memory, driver = map(_attribute, (_NAME, _COMPUTE_VERSION, _MEMORY, _DRIVER))
    return f"{name}, compute capability {version}, {memory} bytes, driver {driver}"


def _attribute(number: int) -> object:
    import tvm_ffi

    return tvm_ffi.get_global_func("runtime.GetDeviceAttr")(_CUDA, 0, number)
