"""What the machine can do at best: measured in a second or two with numpy, kept per machine.

The probe runs in a process of its own, where BLAS is limited to one thread. Every thread of the
probe multiplies its own matrices, or reads its own part of an array. On a busy machine the result
is what other processes left over: it states its share of the processor, and a small share makes it
expire after some minutes.
"""

from __future__ import annotations

import json
import logging
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

_LOG = logging.getLogger(__name__)

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
_IDLE_SHARE = 0.85
"""Share of the processor from which the machine counts as idle while it was probed."""
_BUSY_AGE_S = 600.0
"""Age at which the probe of a busy machine is repeated."""


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
    cpu_share: float = 1.0
    """Share of its threads' time in which the probe ran: less if other processes took some."""

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
    """Peaks of this machine with `threads` threads: measured once, then read from `folder`.

    A warning says if the machine was busy; such peaks are measured again some minutes later.
    """
    machine = machine or this_machine()
    name = f"machine-peaks-{machine.fingerprint}-{threads}"
    found = remembered(MachinePeaks, name, lambda: probe(threads), folder, _is_current)
    if found.cpu_share < _IDLE_SHARE:
        _LOG.warning(
            "the machine was busy while its speed was measured (other processes took %.0f %%): "
            "predictions are too slow; plan again in ten minutes, with the machine idle",
            100 * (1 - found.cpu_share),
        )
    return found


def _is_current(peaks: MachinePeaks, age_s: float) -> bool:
    return peaks.cpu_share >= _IDLE_SHARE or age_s < _BUSY_AGE_S


def _measure(threads: int) -> None:
    """Run in the probe's process: print the peaks as JSON."""
    generator = np.random.default_rng(0)
    with ThreadPoolExecutor(threads) as pool:

        def rate(
            work: Callable[[np.ndarray], object], parts: Sequence[np.ndarray]
        ) -> tuple[float, float]:
            """Most rounds per second within the budget, and the share of the processor then."""
            best, share, end = np.inf, 0.0, time.perf_counter() + _BUDGET_S
            while best == np.inf or time.perf_counter() < end:
                started, before = time.perf_counter(), time.process_time()
                list(pool.map(work, parts))
                taken = time.perf_counter() - started
                if taken < best:
                    best = taken
                    share = (time.process_time() - before) / (threads * taken)
            return 1.0 / best, min(1.0, share)

        matrices = generator.standard_normal((threads, _SIDE, _SIDE), dtype=np.float32)
        product = np.empty_like(matrices[0])
        gflops, product_share = rate(
            lambda a: np.matmul(a, a, out=np.empty_like(product)), list(matrices)
        )
        small = np.ones((threads, _CACHE_BYTES // 4), dtype=np.float32)
        repeats = 16  # long enough for the start of a thread's work not to count
        cached, _ = rate(lambda a: [np.dot(a, a) for _ in range(repeats)], list(small))
        large = np.ones(_MEMORY_BYTES // 4, dtype=np.float32)
        streamed, memory_share = rate(lambda a: np.dot(a, a), np.array_split(large, threads))
    caches = this_machine().caches
    level2 = caches.get("L2", _CACHE_BYTES)
    peaks = MachinePeaks(
        threads=threads,
        gflops=gflops * threads * 2 * _SIDE**3 / 1e9,
        cache_gbps=max(cached * repeats * small.nbytes, streamed * large.nbytes) / 1e9,
        memory_gbps=streamed * large.nbytes / 1e9,
        cache_bytes=level2 * threads,
        cpu_share=min(product_share, memory_share),
    )
    print(json.dumps(asdict(peaks)))
