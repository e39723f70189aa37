"""What the machine can do at best: measured in a second or two with numpy, kept per machine.

The probe runs in a process of its own, where BLAS is limited to one thread and our threads are counted: every thread
multiplies its own matrices, or reads its own part of an array. On a busy machine it therefore reports what was left
over; `probe` is to be repeated when that changes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from layoutsel.cost.probing import ask, remembered
from layoutsel.device.machine import Machine, this_machine
from layoutsel.documents import from_json
from tvm_passes.errors import LayoutselError
from tvm_passes.isa import isa_limit

LAUNCH_US = 1.0
"""Assumed time to call a kernel through TVM's virtual machine; numpy cannot measure it."""

_SIDE = 768
"""Matrices of the probe are square with this side: large enough for BLAS's best kernel."""
_CACHE_BYTES = 1 << 20
"""Array that one thread reads for the cache's bandwidth: inside the second level of any current CPU."""
_MEMORY_BYTES = 192 << 20
"""Array that all threads read for the memory's bandwidth."""
_BUDGET_S = 0.35
"""Time for each of the three measurements."""


@dataclass(frozen=True, kw_only=True)
class MachinePeaks:
    """Ceilings of the roofline, all threads together."""

    threads: int
    gflops: float
    """f32 GFLOP/s that a large matrix product attains."""
    cache_gbps: float
    """GB/s read from cache."""
    memory_gbps: float
    """GB/s read from memory."""
    cache_bytes: int
    """Tensors up to this size stay in cache between sub-graphs."""
    launch_us: float = LAUNCH_US
    """Overhead of starting a kernel, microseconds."""

    def __post_init__(self) -> None:
        rates = (self.gflops, self.cache_gbps, self.memory_gbps)
        if not min(*rates, self.threads, self.cache_bytes, self.launch_us) > 0:
            raise LayoutselError(f"not a machine's peaks: {self}")


def probe(threads: int) -> MachinePeaks:
    """Measure the peaks with `threads` threads; takes about two seconds.

    Raises
    ------
    LayoutselError
        If the measuring process fails.
    """
    limits = dict.fromkeys(
        ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"), "1"
    )
    limit = isa_limit()
    if limit is not None:
        limits["OPENBLAS_CORETYPE"] = limit.blas_core
    code = f"from layoutsel.cost.peaks import _measure; _measure({int(threads)})"
    return from_json(MachinePeaks, ask(code, "this machine", limits), file="probe")


def machine_peaks(
    threads: int, *, folder: Path | None = None, machine: Machine | None = None
) -> MachinePeaks:
    """Peaks of this machine with `threads` threads: measured the first time, read from `folder` afterwards."""
    machine = machine or this_machine()
    name = f"peaks-{machine.fingerprint}-{threads}"
    return remembered(MachinePeaks, name, lambda: probe(threads), folder)


def _measure(threads: int) -> None:
    """Run in the probe's process: print the peaks as JSON."""
    generator = np.random.default_rng(0)
    with ThreadPoolExecutor(threads) as pool:

        def rate(work: Callable[[np.ndarray], object], parts: Sequence[np.ndarray]) -> float:
            """Most parts' rounds per second that were seen within the budget."""
            best, end = np.inf, time.perf_counter() + _BUDGET_S
            while best == np.inf or time.perf_counter() < end:
                started = time.perf_counter()
                list(pool.map(work, parts))
                best = min(best, time.perf_counter() - started)
            return 1.0 / best

        matrices = generator.standard_normal((threads, _SIDE, _SIDE), dtype=np.float32)
        product = np.empty_like(matrices[0])
        gflops = rate(lambda a: np.matmul(a, a, out=np.empty_like(product)), list(matrices))
        small = np.ones((threads, _CACHE_BYTES // 4), dtype=np.float32)
        repeats = 16  # long enough for the start of a thread's work not to count
        cached = rate(lambda a: [np.dot(a, a) for _ in range(repeats)], list(small))
        large = np.ones(_MEMORY_BYTES // 4, dtype=np.float32)
        streamed = rate(lambda a: np.dot(a, a), np.array_split(large, threads))
    caches = this_machine().caches
    level2 = caches.get("L2", _CACHE_BYTES)
    peaks = MachinePeaks(
        threads=threads,
        gflops=gflops * threads * 2 * _SIDE**3 / 1e9,
        cache_gbps=max(cached * repeats * small.nbytes, streamed * large.nbytes) / 1e9,
        memory_gbps=streamed * large.nbytes / 1e9,
        cache_bytes=level2 * threads,
    )
    print(json.dumps(asdict(peaks)))
