"""Early loading of the OpenMP library with short spin times of idle threads.

The library reads this setting once, when it is loaded, so layoutsel has to load it first.
"""

from __future__ import annotations

import contextlib
import ctypes

from tvm_passes.onednn.plugin import short_spinning

_OPENMP = "libgomp.so.1"
"""File name of GNU's OpenMP library."""


def preload_openmp() -> None:
    """Load GNU's OpenMP library with short spinning, if it is installed and not loaded yet.

    ``tvm_ffi`` imports PyTorch if it is installed. PyTorch loads an OpenMP library with its default
    setting, and threads then spin for many milliseconds. Next to another busy process, one
    inference then takes 30 times as long.
    """
    with short_spinning(), contextlib.suppress(OSError):
        ctypes.CDLL(_OPENMP, mode=ctypes.RTLD_GLOBAL)
