"""How many threads compute: one pool for TVM's kernels and oneDNN's, with one setting."""

from __future__ import annotations

import os

import tvm_ffi

from tvm_passes import onednn
from tvm_passes.runtime_library import load_tvm_runtime

SHARE_ALL_CORES = -3
"""TVM's affinity mode that pins no thread to a core. Its default pins the calling thread, and every thread that this
one starts later, OpenMP's included, would inherit the single core."""

_CORES = sorted(os.sched_getaffinity(0))
_current: list[int] = []


def available_threads() -> int:
    """Cores that this process may use."""
    return len(_CORES)


def set_threads(count: int) -> None:
    """Make TVM's kernels and oneDNN use `count` threads from now on.

    With the plugin, both run in its OpenMP pool, and TVM's own pool is never started.
    """
    if _current == [count]:
        return
    if onednn.available() is None:
        onednn.set_num_threads(count)
    else:
        load_tvm_runtime()
        configure = tvm_ffi.get_global_func("runtime.config_threadpool")
        configure(SHARE_ALL_CORES, count, [str(core) for core in _CORES[:count]])
    _current[:] = [count]
