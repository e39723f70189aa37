"""TVM's runtime without its compiler: it runs compiled models with a fifth of the memory."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import sys
from functools import cache
from pathlib import Path

from tvm_passes.errors import UnitUnavailable

_RUNTIME = "libtvm_runtime.so"
"""File name of the runtime."""
BESIDE = Path(__file__).parent / "lib"
"""Folder of the libraries in a package made by `layoutsel runtime`, without TVM."""
VERSION_FILE = "version"
"""File with the TVM version of the libraries in :data:`BESIDE`."""


@cache
def load_tvm_runtime() -> None:
    """Make TVM's runtime functions available to ``tvm_ffi``, unless TVM is already imported.

    Raises
    ------
    UnitUnavailable
        If TVM is not installed.
    """
    import tvm_ffi  # noqa: F401 - loads the library that the runtime links with

    if "tvm" not in sys.modules:
        ctypes.CDLL(str(runtime_library(_RUNTIME)), mode=ctypes.RTLD_GLOBAL)


def runtime_library(name: str) -> Path:
    """Return the path of a library of TVM's runtime.

    Raises
    ------
    UnitUnavailable
        If TVM is not installed.
    """
    if (BESIDE / name).exists():
        return BESIDE / name
    found = importlib.util.find_spec("tvm")
    if found is None or not found.submodule_search_locations:
        raise UnitUnavailable("TVM is not installed: pip install apache-tvm")
    return Path(found.submodule_search_locations[0]) / "lib" / name


def runtime_version() -> str:
    """Return the TVM version of the runtime."""
    beside = BESIDE / VERSION_FILE
    if beside.exists():
        return beside.read_text(encoding="utf-8").strip()
    return importlib.metadata.version("apache-tvm")
