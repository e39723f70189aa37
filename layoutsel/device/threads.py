"""How many threads compute: one pool for TVM's kernels and oneDNN's, with one setting."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Sequence

import tvm_ffi

from tvm_passes import onednn
from tvm_passes.runtime_library import load_tvm_runtime

SHARE_ALL_CORES = -3
"""TVM's affinity mode that pins no thread to a core. Its default pins the calling thread, and every thread that this
one starts later, OpenMP's included, would inherit the single core."""

_CORES = sorted(os.sched_getaffinity(0))
_configured = threading.local()


def available_threads() -> int:
    """Number of cores that this process may use."""
    return len(_CORES)


def available_cores() -> Sequence[int]:
    """Cores that this process may use."""
    return tuple(_CORES)


def shares_openmp() -> bool:
    """True if TVM's kernels run on OpenMP's threads, as the plugin has them do; else on a pool of TVM's own."""
    return onednn.available() is None


def set_threads(count: int, cores: Collection[int] | None = None) -> None:
    """Make the kernels that the calling thread runs use `count` threads from now on.

    This is for threads of our own, in measuring processes for instance: without the plugin, TVM's pool lets the calling
    thread run on the cores of this process, and never ends in a process that was forked. A model's calls go through
    :class:`~layoutsel.device.own_threads.OwnThreads`.

    Parameters
    ----------
    cores
        Where TVM's own pool computes; on all cores of this process where None. OpenMP's threads inherit the affinity of the
        calling thread.
    """
    if shares_openmp():
        onednn.set_num_threads(count)
        return
    used = sorted(cores) if cores is not None else _CORES
    if getattr(_configured, "setting", None) == (count, used):
        return
    load_tvm_runtime()
    configure = tvm_ffi.get_global_func("runtime.config_threadpool")
    configure(SHARE_ALL_CORES, count, [str(core) for core in used])
    _configured.setting = count, used
