"""Find and load the native plugin, once."""

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
_ONEDNN = "libdnnl.so.3"
_ONEDNN_PACKAGE = "onednn-cpu-gomp"

_SPIN_COUNT = "20000"
"""How often an idle OpenMP thread looks for work before it sleeps: about 1 ms.

The default is over ten milliseconds: beside another busy process the spinning thread holds the core that its team
waits for, and inference takes several times as long. Much less than this, and threads sleep between two primitives.
"""


def _onednn_candidates() -> Iterator[str]:
    """Where the oneDNN library may lie, the best guess first; the bare name is the system's."""
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
    """The file that is loaded; None where there is none, or only the system's loader knows."""
    return next((path for path in map(Path, _onednn_candidates()) if path.is_file()), None)


@contextlib.contextmanager
def short_spinning() -> Iterator[None]:
    """Let an OpenMP library that is loaded within spin briefly, unless the user has said how it shall wait.

    Where PyTorch is installed, ``import tvm`` loads one: a program that wants this puts that import inside.
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
    """Load the plugin; None where that worked, else the reason why not."""
    plugin = find_plugin(_PLUGIN, Path(__file__).parent)
    if plugin is None:
        return f"the plugin {_PLUGIN} was not built: install a C++ compiler and install layoutsel again"
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
    """The plugin's global function `name`."""
    load()
    import tvm_ffi

    return tvm_ffi.get_global_func(name)


def set_num_threads(count: int) -> int:
    """Let what the calling thread runs use `count` threads, oneDNN's primitives and TVM's kernels alike; returns the count before.

    0 leaves it to OpenMP's own setting, which is never changed.
    """
    return int(function("layoutsel.set_num_threads")(count))


def get_num_threads() -> int:
    """Threads that the calling thread's kernels and primitives use."""
    return int(function("layoutsel.get_num_threads")())


@contextlib.contextmanager
def limited_to(count: int | None) -> Iterator[None]:
    """Let what the calling thread runs use `count` threads within; None: as many as before."""
    before = set_num_threads(count if count is not None else get_num_threads())
    try:
        yield
    finally:
        set_num_threads(before)


def version() -> str:
    """Version of the oneDNN library in use."""
    return str(function("layoutsel.onednn.version")())
