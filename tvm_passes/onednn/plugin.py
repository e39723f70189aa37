"""Discovery and loading of the native plugin."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tvm_passes.errors import UnitUnavailable
from tvm_passes.native import find_plugin
from tvm_passes.runtime_library import load_tvm_runtime

_PLUGIN = "liblayoutsel_onednn.so"
"""File name of the plugin."""
_ONEDNN = "libdnnl.so.3"
"""File name of the oneDNN library."""
_ONEDNN_PACKAGE = "onednn-cpu-gomp"
"""Python package that contains the oneDNN library."""

_SPIN_COUNT = "20000"
"""Iterations that an idle OpenMP thread spins before it sleeps: about 1 ms.

The default is over ten milliseconds. If another process is busy, the spinning thread then occupies
the core that its team waits for, and inference takes several times as long. With a much smaller
value, threads sleep between two primitives.
"""


def _onednn_candidates() -> Iterator[str]:
    """Yield possible paths of the oneDNN library, the best first; the bare name is the system's."""
    try:
        files = importlib.metadata.files(_ONEDNN_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == _ONEDNN:
            yield str(Path(str(file.locate())).resolve())
    yield str(Path(__file__).parent / _ONEDNN)
    yield str(Path(sys.prefix) / "lib" / _ONEDNN)
    yield _ONEDNN


def onednn_library() -> Path | None:
    """Return the file of the loaded library; None if no known folder has it."""
    return next((path for path in map(Path, _onednn_candidates()) if path.is_file()), None)


@contextlib.contextmanager
def short_spinning() -> Iterator[None]:
    """Limit the spinning of an OpenMP library that is loaded in this context.

    A setting of the user takes precedence. If PyTorch is installed, ``import tvm`` loads such a
    library and belongs inside this context.
    """
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    if any(name in os.environ for name in names):
        yield
        return
    os.environ[names[0]] = _SPIN_COUNT
    try:
        yield
    finally:
        del os.environ[names[0]]


def _load_onednn() -> str | None:
    """Load the oneDNN library; returns None, or the reason of the failure."""
    errors = []
    for candidate in dict.fromkeys(_onednn_candidates()):
        try:
            with short_spinning():
                ctypes.CDLL(candidate, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            errors.append(str(error))
        else:
            return None
    return f"{_ONEDNN} cannot be loaded ({errors[0]}): install {_ONEDNN_PACKAGE}"


@functools.cache
def available() -> str | None:
    """Load the plugin; returns None, or the reason of the failure."""
    plugin = find_plugin(_PLUGIN, Path(__file__).parent)
    if plugin is None:
        return (
            f"the plugin {_PLUGIN} was not built: install a C++ compiler and install layoutsel "
            f"again"
        )
    reason = _load_onednn()
    if reason is not None:
        return reason
    with short_spinning():
        load_tvm_runtime()
    try:
        ctypes.CDLL(str(plugin), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        return f"the plugin {plugin} cannot be loaded ({error}): install layoutsel again"
    return None


def load() -> None:
    """Load the plugin.

    Raises
    ------
    UnitUnavailable
        If it cannot be loaded; :func:`available` gives the same reason.
    """
    reason = available()
    if reason is not None:
        raise UnitUnavailable(f"unit onednn: {reason}")


@functools.cache
def function(name: str) -> Callable[..., Any]:
    """Return the plugin's global function `name`."""
    load()
    import tvm_ffi

    return tvm_ffi.get_global_func(name)


def set_num_threads(count: int) -> int:
    """Set the number of threads for all work of the calling thread; returns the previous one.

    It holds for oneDNN's primitives and for TVM's kernels. 0 selects OpenMP's own setting, which is
    never changed.
    """
    return int(function("layoutsel.set_num_threads")(count))


def get_num_threads() -> int:
    """Return the number of threads of the calling thread's kernels and primitives."""
    return int(function("layoutsel.get_num_threads")())


@contextlib.contextmanager
def limited_to(count: int | None) -> Iterator[None]:
    """Use `count` threads for everything that the calling thread runs in this context.

    None keeps the previous number.
    """
    before = set_num_threads(count if count is not None else get_num_threads())
    try:
        yield
    finally:
        set_num_threads(before)


def version() -> str:
    """Return the version of the oneDNN library in use."""
    return str(function("layoutsel.onednn.version")())
