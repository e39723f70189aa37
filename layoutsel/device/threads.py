"""Number of threads of kernels: one setting for TVM's and oneDNN's."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Sequence

import tvm_ffi

from tvm_passes import onednn
from tvm_passes.runtime_library import load_tvm_runtime

SHARE_ALL_CORES = -3
"""TVM's affinity mode without pinning.

TVM's default pins the calling thread to one core. Every thread that this one starts later, such as
those of OpenMP, would inherit that core.
"""

_CORES = sorted(os.sched_getaffinity(0))
"""Cores of this process, read before TVM can change the affinity."""
_configured = threading.local()
"""Last setting of the calling thread's TVM pool."""


def available_threads() -> int:
    """Number of cores that this process may use."""
    return len(_CORES)


def available_cores() -> Sequence[int]:
    """Cores that this process may use."""
    return tuple(_CORES)


def shares_openmp() -> bool:
    """True if TVM's kernels run on OpenMP's threads through the plugin, not on TVM's own pool."""
    return onednn.available() is None


def set_threads(count: int, cores: Collection[int] | None = None) -> None:
    """Set the number of threads for kernels that the calling thread runs from now on.

    Only for threads that layoutsel owns, such as those of measuring processes. Without the plugin,
    TVM's pool widens the calling thread's affinity, and never ends in a forked process. Calls of a
    model go through :class:`~layoutsel.device.own_threads.OwnThreads` instead.

    Parameters
    ----------
    count
        Number of threads.
    cores
        Cores of TVM's own pool; all cores of this process if None. OpenMP's threads inherit the
        affinity of the calling thread instead.
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
