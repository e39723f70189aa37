"""Peak rates of the machine: measured in a second or two with numpy, then stored per machine.

The probe runs in a separate process with BLAS limited to one thread. Each of the probe's threads
multiplies its own matrices, or reads its own part of an array. On a busy machine the probe measures
only the remaining capacity: it states its share of the processor, and results with a small share
expire after some minutes.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from layoutsel.cost.probing import ask, remembered
from layoutsel.device.machine import Machine, this_machine
from layoutsel.documents import OPTIONAL, from_json
from tvm_passes.errors import LayoutselError
from tvm_passes.isa import isa_limit

_LOG = logging.getLogger(__name__)

LAUNCH_US = 1.0
"""Assumed overhead of calling a kernel through TVM's virtual machine, microseconds.

The probe cannot measure it with numpy.
"""

_BLAS = ("OPENBLAS_", "OMP_", "MKL_", "BLIS_")
"""Start of the names of variables that BLAS libraries read."""
_PROBE = 2
"""Version of the probe; peaks by an earlier one are measured again.

The first one obeyed the user's settings of BLAS.
"""
_SIDE = 768
"""Side of the probe's square matrices, large enough for BLAS's fastest kernel."""
_CACHE_BYTES = 1 << 20
"""Size of the array that one thread reads from cache, bytes; any current L2 cache holds it."""
_MEMORY_BYTES = 192 << 20
"""Size of the array that all threads together read from memory, bytes."""
_BUDGET_S = 0.35
"""Default time budget of each of the three measurements, seconds."""
IDLE_SHARE = 0.85
"""Minimum share of the processor at which the machine counts as idle during a probe."""
_BUSY_AGE_S = 600.0
"""Age from which the probe of a busy machine is repeated, seconds."""


@dataclass(frozen=True, kw_only=True)
class MachinePeaks:
    """Roofline ceilings of the host, all threads together."""

    threads: int
    """Number of threads that compute."""
    gflops: float
    """Attained rate of a large f32 matrix product, GFLOP/s."""
    cache_gbps: float
    """Read bandwidth of the cache, GB/s."""
    memory_gbps: float
    """Read bandwidth of the memory, GB/s."""
    cache_bytes: int
    """Maximum size of tensors that stay in cache between sub-graphs, bytes."""
    launch_us: float = LAUNCH_US
    """Overhead of a kernel call, microseconds."""
    cpu_share: float = field(default=1.0, metadata=OPTIONAL)
    """Share of the threads' time in which the probe ran; below 1 on a busy machine."""

    def __post_init__(self) -> None:
        rates = (self.gflops, self.cache_gbps, self.memory_gbps)
        if not min(*rates, self.threads, self.cache_bytes, self.launch_us) > 0:
            raise LayoutselError(f"not a machine's peaks: {self}")
        if not 0 <= self.cpu_share <= 1:
            raise LayoutselError(f"cpu_share: got {self.cpu_share}; expected a share from 0 to 1")


def probe(threads: int, budget_s: float = _BUDGET_S, *, at_best: bool = True) -> MachinePeaks:
    """Measure the rates of `threads` threads; takes about a second more than the three budgets.

    Parameters
    ----------
    threads
        Number of threads.
    budget_s
        Time budget of each of the three measurements, seconds.
    at_best
        True for the highest rate of all rounds, False for the median.

    Raises
    ------
    LayoutselError
        If the measuring process fails.
    """
    limits: dict[str, str | None] = {
        # The user's settings, such as older kernels, are not those of the machine.
        **{name: None for name in os.environ if name.startswith(_BLAS)},
        **{f"{library}NUM_THREADS": "1" for library in _BLAS},
    }
    limit = isa_limit()
    if limit is not None:
        limits["OPENBLAS_CORETYPE"] = limit.blas_core
    call = f"_measure({int(threads)}, {float(budget_s)}, at_best={bool(at_best)})"
    code = f"from layoutsel.cost.peaks import _measure; {call}"
    return from_json(MachinePeaks, ask(code, "this machine", limits), file="probe")


def kept_name(machine: Machine, threads: int) -> str:
    """Name under which the peaks of `machine` are kept."""
    return f"machine-peaks-{_PROBE}-{machine.fingerprint}-{threads}"


def machine_peaks(
    threads: int, *, folder: Path | None = None, machine: Machine | None = None
) -> MachinePeaks:
    """Return the peaks of this machine, measured once and then read from `folder`.

    A warning reports a busy machine; its peaks are measured again some minutes later.

    Parameters
    ----------
    threads
        Number of threads.
    folder
        Folder of the results; by default the user's cache folder.
    machine
        Description of this machine; found out by default.

    Raises
    ------
    LayoutselError
        If the measuring process fails.
    """
    name = kept_name(machine or this_machine(), threads)
    found = remembered(MachinePeaks, name, lambda: probe(threads), folder, _is_current)
    if found.cpu_share < IDLE_SHARE:
        _LOG.warning(
            "the machine was busy while its speed was measured (other processes took %.0f %%): "
            "predictions are too slow; plan again in ten minutes, with the machine idle",
            100 * (1 - found.cpu_share),
        )
    return found


def _is_current(peaks: MachinePeaks, age_s: float) -> bool:
    return peaks.cpu_share >= IDLE_SHARE or age_s < _BUSY_AGE_S


def _measure(threads: int, budget_s: float, *, at_best: bool) -> None:
    """Measure and print the peaks as JSON; runs in the probe's process."""
    generator = np.random.default_rng(0)
    running = min(threads, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(threads) as pool:

        def rate(
            work: Callable[[np.ndarray], object], parts: Sequence[np.ndarray]
        ) -> tuple[float, float]:
            """Measure the rate of rounds, 1/s, and its share of the processor."""
            rounds, end = list[tuple[float, float]](), time.perf_counter() + budget_s
            while not rounds or time.perf_counter() < end:
                started, before = time.perf_counter(), time.process_time()
                list(pool.map(work, parts))
                taken = time.perf_counter() - started
                rounds.append((taken, (time.process_time() - before) / (running * taken)))
            # Few rounds of a busy machine are undisturbed, and these tell its speed, not its state.
            taken = np.quantile([taken for taken, _ in rounds], 0.0 if at_best else 0.5)
            return 1.0 / float(taken), min(1.0, float(np.median([share for _, share in rounds])))

        matrices = generator.standard_normal((threads, _SIDE, _SIDE), dtype=np.float32)
        product = np.empty_like(matrices[0])
        gflops, product_share = rate(
            lambda a: np.matmul(a, a, out=np.empty_like(product)), list(matrices)
        )
        small = np.ones((threads, _CACHE_BYTES // 4), dtype=np.float32)
        repeats = 16  # long enough to hide the start of a thread's work
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
