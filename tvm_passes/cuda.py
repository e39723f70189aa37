"""What the compute unit ``cuda`` needs beside TVM's wheel: the driver of a device to run, and a compiler to generate code.

TVM compiles CUDA's source where it finds the driver, and keeps source where it does not, for a machine that has a compiler as
well. Here it always becomes PTX for the architecture that is asked for, which a driver alone takes: :func:`compiling` makes it,
and :func:`taking_ptx` lets it pass where TVM expects source.

Importing this does not import TVM.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

from tvm_passes.devices import ask_driver
from tvm_passes.errors import UnitUnavailable

_CUDA = 2
"""DLPack's number of the device type."""
_EXIST, _NAME, _COMPUTE_VERSION, _DRIVER, _MEMORY = 0, 5, 4, 12, 14
"""TVM's numbers of attributes."""
_COMPILER = "TVM_CUDA_COMPILE_MODE"
"""TVM's variable: ``nvrtc``, through the package cuda-bindings, or ``nvcc``."""
_REWRITE, _COMPILE = "tvm_callback_cuda_postproc", "tvm_callback_cuda_compile"
"""What TVM calls with the source that it generated, and with what a saved module holds."""
_ROUNDED_LIMIT, _LIMIT = "3.402823e+38f", "3.402823466e+38f"
"""The largest float32 as TVM writes it, and as it is: maxima start from its negative, which masks consist of."""
_PTX = ".version"
"""The directive that PTX begins with, comments aside."""
_one_at_a_time = threading.RLock()


@functools.cache
def available() -> str | None:
    """Load the run time; None if that worked, else the reason why not."""
    import tvm_ffi

    from tvm_passes.runtime_library import load_tvm_runtime, runtime_library

    load_tvm_runtime()
    if tvm_ffi.get_global_func("device_api.cuda", allow_missing=True) is None:
        try:
            ctypes.CDLL(str(runtime_library("libtvm_runtime_cuda.so")))
        except OSError as error:
            return f"TVM's run time for CUDA cannot be loaded ({error}): install NVIDIA's driver and libcudart of CUDA 13"
    return None


@contextlib.contextmanager
def taking_ptx() -> Iterator[None]:
    """Within it, modules that are loaded may hold PTX; in one thread at a time."""
    import tvm_ffi

    with _one_at_a_time:
        compile_source = tvm_ffi.get_global_func(_COMPILE, allow_missing=True)

        def compiled(code: str) -> Any:
            if is_ptx(code) or compile_source is None:
                return code.encode()
            return compile_source(code)

        with _registered(_COMPILE, compiled):
            yield


@contextlib.contextmanager
def _registered(name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Let TVM find `function` by `name`, in place of what it finds otherwise, if anything."""
    import tvm_ffi

    earlier = tvm_ffi.get_global_func(name, allow_missing=True)
    tvm_ffi.register_global_func(name, function, override=True)
    try:
        yield
    finally:
        tvm_ffi.remove_global_func(name)
        if earlier is not None:
            tvm_ffi.register_global_func(name, earlier)


def is_ptx(code: str) -> bool:
    """True if code is PTX, not source."""
    lines = (line for line in code.splitlines() if line.strip() and not line.startswith("//"))
    return next(lines, "").startswith(_PTX)


def unavailable() -> str | None:
    """Why no CUDA device can be used on this machine; None if one can."""
    return missing() or uncompilable()


def missing() -> str | None:
    """Why this machine cannot run what was compiled for CUDA; None if it can."""
    reason = available() or ask_driver("cuda")
    if reason is None and not _attribute(_EXIST):
        return "the driver finds no device"
    return reason


def uncompilable() -> str | None:
    """Why no code for CUDA can be generated on this machine; None if it can."""
    if _has_nvrtc() or shutil.which("nvcc"):
        return None
    return "there is no compiler for CUDA: install the package cuda-bindings, or nvcc (CUDA 12 or later) on PATH"


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Within it TVM compiles for CUDA with what is at hand, to PTX; in one thread at a time.

    Raises
    ------
    UnitUnavailable
        If there is no compiler.
    """
    import tvm_ffi

    if reason := uncompilable():
        raise UnitUnavailable(f"no code for 'cuda' can be generated here: {reason}")
    with taking_ptx(), _compiler_at_hand():
        rewrite = tvm_ffi.get_global_func(_REWRITE, allow_missing=True)

        def compiled(source: str, target: Any) -> str:
            return to_ptx(source if rewrite is None else rewrite(source, target), target)

        with _registered(_REWRITE, compiled):
            yield


def to_ptx(source: str, target: Any) -> str:
    """What the compiler at hand makes of CUDA's source."""
    from tvm.support import nvcc

    mode = os.environ[_COMPILER].lower() if _COMPILER in os.environ else "nvrtc"
    arch = str(target.attrs["arch"])
    with target:
        exact = source.replace(_ROUNDED_LIMIT, _LIMIT)
        made = nvcc.compile_cuda(exact, target_format="ptx", arch=arch, compiler=mode)
    return bytes(made).decode().rstrip("\0")


@contextlib.contextmanager
def _compiler_at_hand() -> Iterator[None]:
    """Tell TVM of nvcc, unless the user has said what to take."""
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


def identity(index: int = 0) -> str:
    """All that measurements on a device depend on: its name, what it can, its memory and its driver."""
    told = (_NAME, _COMPUTE_VERSION, _MEMORY, _DRIVER)
    name, version, memory, driver = (_attribute(number, index) for number in told)
    return f"{name}, compute capability {version}, {memory} bytes, driver {driver}"


def _attribute(number: int, index: int = 0) -> object:
    import tvm_ffi

    return tvm_ffi.get_global_func("runtime.GetDeviceAttr")(_CUDA, index, number)
