"""What a machine's memory gives, measured with Python's standard library alone."""

from __future__ import annotations

import ctypes
import time
from concurrent.futures import ThreadPoolExecutor

_MEMORY_BYTES = 64 << 20
"""Each thread compares two parts of this size: beyond all caches."""
_CACHE_BYTES = 1 << 18
"""The same within a second-level cache."""
_BUDGET_S = 0.3
_REPEATS = 64
"""Comparisons in a row within the cache: the start of a thread's work shall not count."""


def read_gbps(threads: int) -> tuple[float, float]:
    """GB/s that `threads` threads together read from memory and from their caches.

    Where memory is short, what the caches give is taken for half a gigabyte less, down to what can be allocated.
    """
    memory = _rate(threads, _MEMORY_BYTES, 1)
    return memory, max(_rate(threads, _CACHE_BYTES, _REPEATS), memory)


def _rate(threads: int, nbytes: int, repeats: int) -> float:
    """The best rate at which the C library compares equal blocks, which reads both to their ends."""
    compare = ctypes.CDLL(None).memcmp
    compare.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    blocks = [
        (ctypes.create_string_buffer(nbytes), ctypes.create_string_buffer(nbytes))
        for _ in range(threads)
    ]

    def work(pair: tuple[ctypes.Array[ctypes.c_char], ctypes.Array[ctypes.c_char]]) -> None:
        one, other = map(ctypes.addressof, pair)
        for _ in range(repeats):
            compare(one, other, nbytes)

    best_s, end = float("inf"), time.perf_counter() + _BUDGET_S
    with ThreadPoolExecutor(threads) as pool:
        while best_s == float("inf") or time.perf_counter() < end:
            started = time.perf_counter()
            list(pool.map(work, blocks))
            best_s = min(best_s, time.perf_counter() - started)
    return threads * repeats * 2 * nbytes / best_s / 1e9
