"""Bandwidth of a machine's memory and caches, measured with the standard library alone."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_MEMORY_BYTES = 64 << 20
"""Size of each of a thread's two blocks for main memory, bytes; exceeds most caches."""
_CACHE_BYTES = 1 << 18
"""Size of each of a thread's two blocks for caches, bytes; fits in a second-level cache."""
_BUDGET_S = 0.25
"""Time of one measurement, seconds."""
_REPEATS = 64
"""Passes in a row within the cache, so that the start of a thread's work does not count."""

_Pass = Callable[[int, int, int], object]
"""Function that reads or writes two blocks, given their addresses and their size in bytes."""


def memory_rates(threads: int) -> tuple[float, float]:
    """Bandwidth of memory and of caches, GB/s, of `threads` threads together.

    The faster of the C library's ``memcmp`` and ``memmove`` counts; both touch two blocks entirely.
    """
    compare = ctypes.CDLL(None).memcmp
    compare.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    passes: tuple[_Pass, ...] = (compare, ctypes.memmove)
    memory = max(_rate(one, threads, _MEMORY_BYTES, 1) for one in passes)
    cache = max(_rate(one, threads, _CACHE_BYTES, _REPEATS) for one in passes)
    return memory, max(memory, cache)


def _rate(go_through: _Pass, threads: int, nbytes: int, repeats: int) -> float:
    blocks = [
        (ctypes.create_string_buffer(nbytes), ctypes.create_string_buffer(nbytes))
        for _ in range(threads)
    ]
    for block in (block for pair in blocks for block in pair):
        ctypes.memset(block, 1, nbytes)  # untouched blocks may all map to one page of zeros

    def work(pair: tuple[ctypes.Array[ctypes.c_char], ctypes.Array[ctypes.c_char]]) -> None:
        one, other = map(ctypes.addressof, pair)
        for _ in range(repeats):
            go_through(one, other, nbytes)

    best_s, end = float("inf"), time.perf_counter() + _BUDGET_S
    with ThreadPoolExecutor(threads) as pool:
        while best_s == float("inf") or time.perf_counter() < end:
            started = time.perf_counter()
            list(pool.map(work, blocks))
            best_s = min(best_s, time.perf_counter() - started)
    return threads * repeats * 2 * nbytes / best_s / 1e9
