"""Find and load the OpenCL run time, once."""

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
_DEVICE_API = "device_api.opencl"
"""What TVM asks for when a device ``opencl`` is first used."""
_OPENCL, _EXIST = 4, 0
"""DLPack's number of the device type, and TVM's of the attribute."""
_loading = threading.RLock()
"""Held by who loads: names can be registered once."""
os.register_at_fork(
    before=_loading.acquire, after_in_parent=_loading.release, after_in_child=_loading.release
)


def available() -> str | None:
    """Load the run time; None where TVM has one, else the reason why not. No driver is asked for anything yet."""
    with _loading:
        return _load()


@functools.cache
def _load() -> str | None:
    import tvm_ffi

    load_tvm_runtime()
    if tvm_ffi.get_global_func(_DEVICE_API, allow_missing=True) is not None:
        return None  # a TVM that was built with OpenCL
    plugin = find_plugin(_PLUGIN, Path(__file__).parent)
    if plugin is None:
        return (
            f"the plugin {_PLUGIN} was not built: install a C++ compiler and OpenCL's headers and loader (Debian: "
            f"g++ ocl-icd-opencl-dev), and install layoutsel again"
        )
    try:
        library = ctypes.CDLL(str(plugin))
    except OSError as error:
        return f"the plugin {plugin} cannot be loaded ({error}): install OpenCL's loader (Debian: ocl-icd-libopencl1)"
    register = library.layoutsel_register_opencl
    register.restype = ctypes.c_char_p
    problem = register()
    if problem is not None:
        return f"the plugin {plugin} cannot be registered: {problem.decode()}"
    tvm_ffi.get_global_func("layoutsel.opencl.set_cache")(str(cache_folder()))
    return None


def cache_folder() -> Path:
    """Where built programs are kept."""
    return user_cache() / "opencl"


def has_device() -> bool:
    """Whether TVM finds a first device; drivers are asked now."""
    import tvm_ffi

    attribute = tvm_ffi.get_global_func("runtime.GetDeviceAttr")
    return bool(attribute(_OPENCL, 0, _EXIST))


def identity(index: int = 0) -> str:
    """All that measurements on a device depend on: platform, device and driver, with their versions."""
    import tvm_ffi

    told = tvm_ffi.get_global_func("layoutsel.opencl.identity", allow_missing=True)
    return str(told(index)) if told is not None else "a device of TVM's own"


def devices() -> tuple[str, ...]:
    """Names of the devices, in the order of TVM's numbers; none without a driver."""
    import tvm_ffi

    if available() is not None:
        return ()
    labels = tvm_ffi.get_global_func("layoutsel.opencl.devices", allow_missing=True)
    return tuple(map(str, labels())) if labels is not None else ()
