"""How many threads compute: one setting for TVM's kernels and oneDNN's."""

from __future__ import annotations

import os

import tvm_ffi

from tvm_passes.runtime_library import load_tvm_runtime

_current: list[int] = []


def available_threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def set_threads(count: int) -> None:
    """Make TVM's kernels and oneDNN use `count` threads from now on."""
    if _current == [count]:
        return
    load_tvm_runtime()
    tvm_ffi.get_global_func("runtime.config_threadpool")(1, count)
    plugin = tvm_ffi.get_global_func("layoutsel.set_num_threads", allow_missing=True)
    if plugin is not None:
        plugin(count)
    _current[:] = [count]
