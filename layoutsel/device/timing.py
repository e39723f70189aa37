"""How anything is timed: a candidate in turns with a reference kernel, at home and on a device alike."""

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
"""Turns of a candidate and the reference kernel."""
ATTEMPTS = 2
QUIET = 0.05
"""Scatter, as a share of the time, up to which one attempt is enough."""
FEWEST, SLOW_BUDGET_S = 3, 0.5
"""A slow candidate gets fewer turns."""
CHAIN = 9
"""Sub-graphs in the chain that measures a hand-over."""
COPIES = 40
"""Copies of a tensor from one device to another."""
BUDGET_S = 0.08
"""Seconds of timing per candidate, warm-up excluded; building takes longer than that."""

Measured = tuple[float, float, int]
"""Time and spread of one run, microseconds, and how many runs were made."""


def time_candidate(
    candidate: LoadedCandidate, reference: LoadedCandidate, threads: int
) -> Measured:
    """Time one run of a candidate.

    The candidate and the reference kernel are timed in turns. What interferes only ever adds time, so both are
    taken at their lower quartile, and the candidate's is scaled to the machine's best speed. Where the times scatter,
    everything is done once more, and the quietest attempt counts.
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
    """Time a hand-over: a chain of tiny sub-graphs on two units by turns, less the same chain on each alone.

    Parameters
    ----------
    chains
        The alternating one, then those of each unit alone; :data:`CHAIN` sub-graphs each.
    """
    times = [time_candidate(chain, reference, threads) for chain in chains]
    alternating, *alone = (us for us, _, _ in times)
    runs = min(count for _, _, count in times)
    spread_us = max(spread for _, spread, _ in times) / (CHAIN - 1)
    return max(alternating - sum(alone) / 2, 0.0) / (CHAIN - 1), spread_us, runs


def time_copy(places: Sequence[DeviceId], shape: Sequence[int]) -> Measured:
    """Time a copy of float32 of that shape from the memory of one device to that of another."""
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
    reference_us: float
    scatter: float
    """Half the distance of the candidate's quartiles, as a share of `us`."""
    runs: int


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
