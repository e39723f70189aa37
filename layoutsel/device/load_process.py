"""Program of a process that occupies one core; it needs the standard library alone.

Arguments: core, kind, duty, seconds to live, process id of the parent. It prints ``ready`` once it
runs on its core, and ends after the time limit or soon after the end of its parent.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
import time
from collections.abc import Callable

PERIOD_S = 0.01
"""Time over which the duty is kept, and between two checks for the end, seconds."""
_COMPUTE_BYTES = 32 << 10
"""Data of the arithmetic, bytes; fits in a first-level cache."""
_MEMORY_BYTES = 128 << 20
"""Data of the memory stream, bytes; exceeds the last-level cache of most machines."""
_STEP_BYTES = 1 << 20
"""Bytes that one step of the memory stream copies."""


def compute() -> Callable[[], object]:
    """Make a step of arithmetic within the first-level cache, about 20 microseconds."""
    data = bytes(_COMPUTE_BYTES)
    return lambda: hashlib.sha256(data).digest()


def memory() -> Callable[[], object]:
    """Make a step of a stream through the main memory, about 100 microseconds."""
    half = _MEMORY_BYTES // 2
    block = ctypes.create_string_buffer(_MEMORY_BYTES)
    ctypes.memset(block, 1, _MEMORY_BYTES)  # untouched pages may all map to one page of zeros
    offset = 0

    def step() -> None:
        nonlocal offset
        start = ctypes.addressof(block) + offset
        ctypes.memmove(start + half, start, _STEP_BYTES)
        offset = (offset + _STEP_BYTES) % half

    return step


STEPS = {"compute": compute, "memory": memory}
"""Makers of steps, by kind."""


def occupy(step: Callable[[], object], duty: float, is_over: Callable[[], bool]) -> None:
    """Use the processor for `duty` of the time until the end.

    The duty counts processor time, as a real process needs a certain amount of work done. Beside
    other work, the process therefore becomes runnable for longer.
    """
    owed_s, next_s = 0.0, time.monotonic()
    while not is_over():
        owed_s = min(owed_s + duty * PERIOD_S, PERIOD_S)
        started_s = time.thread_time()
        while (used_s := time.thread_time() - started_s) < owed_s:
            step()
        owed_s -= used_s
        now_s = time.monotonic()
        next_s = max(next_s + PERIOD_S, now_s)
        if duty < 1:
            time.sleep(next_s - now_s)


def main(core: int, kind: str, duty: float, limit_s: float, parent: int) -> None:
    """Occupy a core; the arguments are those of this module."""
    end_s = time.monotonic() + limit_s
    os.sched_setaffinity(0, {core})
    step = STEPS[kind]()
    step()
    print("ready", flush=True)
    occupy(step, duty, lambda: os.getppid() != parent or time.monotonic() >= end_s)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
