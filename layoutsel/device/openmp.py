"""Load the OpenMP library before anything else does: how long its idle threads spin is read then, and only then."""

from __future__ import annotations

import contextlib
import ctypes

from tvm_passes.onednn.plugin import short_spinning

_OPENMP = "libgomp.so.1"


def preload_openmp() -> None:
    """Load GNU's OpenMP library with short spinning, if it is there and not loaded yet.

    ``tvm_ffi`` imports PyTorch where that is installed, which brings an OpenMP library and its default: threads that
    spin for many milliseconds. Beside another busy process one inference then takes 30 times as long.
    """
    with short_spinning(), contextlib.suppress(OSError):
        ctypes.CDLL(_OPENMP, mode=ctypes.RTLD_GLOBAL)
