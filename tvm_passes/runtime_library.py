"""TVM's runtime without its compiler: what running a compiled model needs, at a fifth of the memory."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from functools import cache
from pathlib import Path

from tvm_passes.errors import UnitUnavailable

_RUNTIME = "libtvm_runtime.so"


@cache
def load_tvm_runtime() -> None:
    """Make TVM's runtime functions available to ``tvm_ffi``; nothing happens where TVM is imported already.

    Raises
    ------
    UnitUnavailable
        If TVM is not installed.
    """
    import tvm_ffi  # noqa: F401 - brings the library that the runtime links with

    if "tvm" not in sys.modules:
        ctypes.CDLL(str(runtime_library(_RUNTIME)), mode=ctypes.RTLD_GLOBAL)


def runtime_library(name: str) -> Path:
    """Where one of the libraries of TVM's runtime lies; raises :class:`UnitUnavailable` where TVM is not installed."""
    found = importlib.util.find_spec("tvm")
    if found is None or not found.submodule_search_locations:
        raise UnitUnavailable("TVM is not installed: pip install apache-tvm")
    return Path(found.submodule_search_locations[0]) / "lib" / name
