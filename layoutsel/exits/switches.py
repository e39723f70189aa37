"""Times of hand-overs between threads, measured as requests make them."""

from __future__ import annotations

import statistics
import threading
import time
from functools import partial

from layoutsel.device.stage_worker import TensorWorker
from layoutsel.device.worker_machines import Machines
from layoutsel.errors import RunTimeout
from layoutsel.exits.signals import give, unset_signal

ROUNDS = 200
"""Number of measured hand-overs."""
LIMIT_S = 10.0
"""Time limit of one wait, seconds."""


def median_handover_us(source: TensorWorker, destination: TensorWorker) -> float:
    """Time from a signal of one worker to the other's wake, microseconds.

    It is half of the time of a signal there and another one back.

    Parameters
    ----------
    source, destination
        Idle workers.
    """
    there = [unset_signal() for _ in range(ROUNDS)]
    back = [unset_signal() for _ in range(ROUNDS)]
    replies = destination.submit("hand over", partial(_reply, there, back))
    times = source.submit("hand over", partial(_ask, there, back))
    replies.result(2 * LIMIT_S)
    return 1e6 * statistics.median(times.result(2 * LIMIT_S)) / 2


def _ask(
    there: list[threading.Lock], back: list[threading.Lock], _machines: Machines
) -> list[float]:
    """Give signals and wait for the answer to each; returns the times, seconds."""
    times = []
    for one, other in zip(there, back, strict=True):
        start_s = time.perf_counter()
        give(one)
        _await(other)
        times.append(time.perf_counter() - start_s)
    return times


def _reply(there: list[threading.Lock], back: list[threading.Lock], _machines: Machines) -> None:
    for one, other in zip(there, back, strict=True):
        _await(one)
        give(other)


def _await(signal: threading.Lock) -> None:
    if not signal.acquire(timeout=LIMIT_S):
        raise RunTimeout(f"a worker gave no signal within {LIMIT_S:g} s while measuring")
