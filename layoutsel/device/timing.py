"""Timing of candidates, in alternation with a reference kernel, on hosts and devices."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from layoutsel.device.candidate import LoadedCandidate
from layoutsel.device.reference import SLOWEST, best_reference
from layoutsel.device.tensors import copied, random_tensor
from layoutsel.device.virtual_machine import synchronise
from tvm_passes.devices import DeviceId

ROUNDS = 12
"""Number of alternations between a candidate and the reference kernel."""
ATTEMPTS = 2
"""Maximum number of attempts; the one with the least scatter counts."""
QUIET = 0.05
"""Relative scatter below which one attempt is enough."""
FEWEST, SLOW_BUDGET_S = 3, 0.5
"""Minimum number of alternations for slow candidates, and the time they are reduced to, seconds."""
CHAIN = 9
"""Number of sub-graphs in a chain that measures a hand-over."""
COPIES = 40
"""Number of timed copies of a tensor between two devices."""
BUDGET_S = 0.08
"""Time of timing one candidate without warm-up, seconds; building takes longer."""

Measured = tuple[float, float, int]
"""Time and spread of one run in microseconds, and the number of runs."""


def time_candidate(
    candidate: LoadedCandidate, reference: LoadedCandidate, threads: int
) -> Measured:
    """Time one run of a candidate.

    The candidate and the reference kernel are timed in alternation. Disturbances only add time, so
    both are taken at their lower quartile. The candidate's time is scaled to the machine's best
    speed. If the times scatter, the measurement is repeated, and the attempt with the least scatter
    counts.

    Parameters
    ----------
    candidate
        Candidate to time.
    reference
        Reference kernel; see :mod:`layoutsel.device.reference`.
    threads
        Number of threads of both.
    """
    attempts: list[_Attempt] = []
    while len(attempts) < ATTEMPTS:
        attempts.append(_attempt(candidate, reference))
        if attempts[-1].scatter <= QUIET or attempts[-1].runs == FEWEST:
            break
    best = min(attempts, key=lambda attempt: attempt.scatter)
    speed = best_reference(threads).speed(best.reference_us)
    us = best.us * max(speed, SLOWEST)
    spread_us = us * (best.scatter + max(SLOWEST - speed, 0.0))
    return us, spread_us, best.runs


def time_crossing(
    chains: Sequence[LoadedCandidate], reference: LoadedCandidate, threads: int
) -> Measured:
    """Time a hand-over between two units.

    The result is the time per hand-over of a chain that alternates between the units, minus the
    mean of chains on each unit alone.

    Parameters
    ----------
    chains
        The alternating chain, then one for each unit alone; :data:`CHAIN` tiny sub-graphs each.
    reference
        Reference kernel.
    threads
        Number of threads.
    """
    times = [time_candidate(chain, reference, threads) for chain in chains]
    alternating, *alone = (us for us, _, _ in times)
    runs = min(count for _, _, count in times)
    spread_us = max(spread for _, spread, _ in times) / (CHAIN - 1)
    return max(alternating - sum(alone) / 2, 0.0) / (CHAIN - 1), spread_us, runs


def time_copy(places: Sequence[DeviceId], shape: Sequence[int]) -> Measured:
    """Time a copy of a float32 tensor between the memories of two devices."""
    source, destination = places
    there = random_tensor(shape, "float32", 0, source)
    times_us = []
    for _ in range(COPIES):
        start = time.perf_counter()
        copied(there, destination)
        synchronise(places)
        times_us.append(1e6 * (time.perf_counter() - start))
    lower, _, upper = statistics.quantiles(times_us, n=4)
    return lower, (upper - lower) / 2, COPIES


@dataclass(frozen=True)
class _Attempt:
    """Lower quartiles of a candidate and of the reference kernel, timed in turns."""

    us: float
    """Time of one run of the candidate, microseconds."""
    reference_us: float
    """Time of one run of the reference kernel, microseconds."""
    scatter: float
    """Half the interquartile range of the candidate, as a share of `us`."""
    runs: int
    """Number of timed runs of the candidate."""


def _attempt(candidate: LoadedCandidate, reference: LoadedCandidate) -> _Attempt:
    candidate.run()
    start = time.perf_counter()
    candidate.run()
    once_s = max(time.perf_counter() - start, 1e-6)
    number = max(1, min(2000, int(BUDGET_S / ROUNDS / once_s)))
    rounds = max(FEWEST, min(ROUNDS, int(SLOW_BUDGET_S / once_s)))
    times_us, references_us = [], []
    for _ in range(rounds):
        references_us.append(1e6 * reference.seconds(1) / reference.copies)
        times_us.append(1e6 * candidate.seconds(number) / candidate.copies)
    lower, _, upper = statistics.quantiles(times_us, n=4)
    reference_us = statistics.quantiles(references_us, n=4)[0]
    return _Attempt(lower, reference_us, (upper - lower) / 2 / lower, number * rounds)
