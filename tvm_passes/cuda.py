"""Requirements of the compute unit ``cuda``: a driver to run, a compiler to generate code.

TVM itself compiles CUDA source only if it finds a driver. Otherwise it keeps the source, which then
needs a compiler on the machine that runs it. This package therefore always generates PTX for the
requested architecture, which needs only a driver. :func:`compiling` generates PTX, and
:func:`taking_ptx` makes TVM accept it in place of source.

Importing this module does not import TVM.
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
"""TVM's numbers of device attributes."""
_COMPILER = "TVM_CUDA_COMPILE_MODE"
"""TVM's variable: ``nvrtc`` uses the package cuda-bindings, ``nvcc`` the compiler on PATH."""
_REWRITE, _COMPILE = "tvm_callback_cuda_postproc", "tvm_callback_cuda_compile"
"""Functions that TVM calls with generated source, and with the contents of a saved module."""
_ROUNDED_LIMIT, _LIMIT = "3.402823e+38f", "3.402823466e+38f"
"""The largest float32 as TVM writes it, and its exact value.

Maxima start from its negative, which masks contain.
"""
_PTX = ".version"
"""First directive of PTX, apart from comments."""
_one_at_a_time = threading.RLock()
"""Held while functions of TVM are replaced."""


@functools.cache
def available() -> str | None:
    """Load the runtime; returns None, or the reason of the failure."""
    import tvm_ffi

    from tvm_passes.runtime_library import load_tvm_runtime, runtime_library

    load_tvm_runtime()
    if tvm_ffi.get_global_func("device_api.cuda", allow_missing=True) is None:
        try:
            ctypes.CDLL(str(runtime_library("libtvm_runtime_cuda.so")))
        except OSError as error:
            return (
                f"TVM's run time for CUDA cannot be loaded ({error}): install NVIDIA's driver and "
                f"libcudart of CUDA 13"
            )
    return None


@contextlib.contextmanager
def taking_ptx() -> Iterator[None]:
    """Accept PTX in modules that are loaded in this context; one thread at a time."""
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
    """Register `function` with TVM under `name` in this context; an earlier one is restored."""
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
    """Return whether code is PTX, as opposed to source."""
    lines = (line for line in code.splitlines() if line.strip() and not line.startswith("//"))
    return next(lines, "").startswith(_PTX)


def unavailable() -> str | None:
    """Return the reason why no CUDA device can be used on this machine, or None."""
    return missing() or uncompilable()


def missing() -> str | None:
    """Return the reason why this machine cannot run code compiled for CUDA, or None."""
    reason = available() or ask_driver("cuda")
    if reason is None and not _attribute(_EXIST):
        return "the driver finds no device"
    return reason


def uncompilable() -> str | None:
    """Return the reason why no code for CUDA can be generated on this machine, or None."""
    if _has_nvrtc() or shutil.which("nvcc"):
        return None
    return (
        "there is no compiler for CUDA: install the package cuda-bindings, or nvcc (CUDA 12 or "
        "later) on PATH"
    )


def to_ptx(source: str, target: Any) -> str:
    """Compile CUDA source to PTX with the available compiler."""
    from tvm.support import nvcc

    mode = os.environ[_COMPILER].lower() if _COMPILER in os.environ else "nvrtc"
    arch = str(target.attrs["arch"])
    with target:
        exact = source.replace(_ROUNDED_LIMIT, _LIMIT)
        made = nvcc.compile_cuda(exact, target_format="ptx", arch=arch, compiler=mode)
    return bytes(made).decode().rstrip("\0")


@contextlib.contextmanager
def compiling(compile_source: Callable[[str, Any], str] = to_ptx) -> Iterator[None]:
    """Generate PTX with the available compiler in this context; one thread at a time.

    Parameters
    ----------
    compile_source
        (CUDA source, target) → PTX.

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
            return compile_source(source if rewrite is None else rewrite(source, target), target)

        with _registered(_REWRITE, compiled):
            yield


@contextlib.contextmanager
def _compiler_at_hand() -> Iterator[None]:
    """Select nvcc in this context, unless the user selected a compiler or nvrtc is available."""
    if _COMPILER in os.environ or _has_nvrtc():
        yield
        return
    os.environ[_COMPILER] = "nvcc"
    try:
        yield
    finally:
        os.environ.pop(_COMPILER, None)


def _has_nvrtc() -> bool:
    """Return whether the package cuda-bindings is installed."""
    with contextlib.suppress(ModuleNotFoundError):
        return importlib.util.find_spec("cuda.bindings") is not None
    return False


def identity(index: int = 0) -> str:
    """Return a device's name, compute capability, memory and driver.

    Measurements on a device depend on all of them.
    """
    told = (_NAME, _COMPUTE_VERSION, _MEMORY, _DRIVER)
    name, version, memory, driver = (_attribute(number, index) for number in told)
    return f"{name}, compute capability {version}, {memory} bytes, driver {driver}"


def _attribute(number: int, index: int = 0) -> object:
    """Return an attribute of a device, by TVM's number."""
    import tvm_ffi

    return tvm_ffi.get_global_func("runtime.GetDeviceAttr")(_CUDA, index, number)
