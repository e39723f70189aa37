"""Discovery and loading of the OpenCL runtime."""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from pathlib import Path

from tvm_passes.cache_folder import user_cache
from tvm_passes.native import find_plugin
from tvm_passes.runtime_library import load_tvm_runtime

_PLUGIN = "liblayoutsel_opencl.so"
"""File name of the plugin."""
_DEVICE_API = "device_api.opencl"
"""Global function through which TVM uses a device ``opencl``."""
_OPENCL, _EXIST = 4, 0
"""DLPack's number of the device type, and TVM's number of the attribute "exists"."""
_loading = threading.RLock()
"""Held while the plugin is loaded: its names can be registered only once."""
os.register_at_fork(
    before=_loading.acquire, after_in_parent=_loading.release, after_in_child=_loading.release
)


def available() -> str | None:
    """Load the runtime; returns None, or the reason of the failure. No driver is asked yet."""
    with _loading:
        return _load()


@functools.cache
def _load() -> str | None:
    """Load and register the runtime, unless TVM was built with OpenCL."""
    import tvm_ffi

    load_tvm_runtime()
    if tvm_ffi.get_global_func(_DEVICE_API, allow_missing=True) is not None:
        return None
    plugin = find_plugin(_PLUGIN, Path(__file__).parent)
    if plugin is None:
        return (
            f"the plugin {_PLUGIN} was not built: install a C++ compiler and OpenCL's headers and "
            f"loader (Debian: g++ ocl-icd-opencl-dev), and install layoutsel again"
        )
    try:
        library = ctypes.CDLL(str(plugin))
    except OSError as error:
        return (
            f"the plugin {plugin} cannot be loaded ({error}): install OpenCL's loader "
            f"(Debian: ocl-icd-libopencl1)"
        )
    register = library.layoutsel_register_opencl
    register.restype = ctypes.c_char_p
    problem = register()
    if problem is not None:
        return f"the plugin {plugin} cannot be registered: {problem.decode()}"
    tvm_ffi.get_global_func("layoutsel.opencl.set_cache")(str(cache_folder()))
    return None


def cache_folder() -> Path:
    """Return the folder of built programs."""
    return user_cache() / "opencl"


def has_device() -> bool:
    """Return whether TVM finds a first device; this asks the drivers."""
    import tvm_ffi

    attribute = tvm_ffi.get_global_func("runtime.GetDeviceAttr")
    return bool(attribute(_OPENCL, 0, _EXIST))


def identity(index: int = 0) -> str:
    """Return the platform, device and driver of a device, with their versions.

    Measurements on a device depend on all of them.
    """
    import tvm_ffi

    told = tvm_ffi.get_global_func("layoutsel.opencl.identity", allow_missing=True)
    return str(told(index)) if told is not None else "a device of TVM's own"


def devices() -> tuple[str, ...]:
    """Return the names of the devices, in the order of TVM's numbers; empty without a driver."""
    import tvm_ffi

    if available() is not None:
        return ()
    labels = tvm_ffi.get_global_func("layoutsel.opencl.devices", allow_missing=True)
    return tuple(map(str, labels())) if labels is not None else ()
