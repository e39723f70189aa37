"""What a measuring process runs: build one candidate, time it. Called by name, in a child process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax

from layoutsel.building.candidate import (
    Candidate,
    build_candidate,
    build_chain,
    build_transform,
    device_called,
    random_array,
)
from layoutsel.building.reference import SLOWEST, best_reference, time_reference
from layoutsel.runtime.threads import set_threads
from tvm_passes.backends import BACKENDS
from tvm_passes.cpu import host_target
from tvm_passes.decision import Decision
from tvm_passes.devices import HOST
from tvm_passes.tuned import database_of

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


def run_request(request: Mapping[str, Any]) -> tuple[float, float, int]:
    """Build and time what `request` describes.

    Returns
    -------
    tuple
        Time and spread of one run, microseconds, and how many runs were made: see :func:`time_candidate`.
    """
    threads = int(request["threads"])
    set_threads(threads)
    target = host_target()
    if request["kind"] == "crossing":
        units = (request["source"], request["destination"])
        if any(BACKENDS[unit].device != HOST for unit in units):
            return time_copy(*units, tuple(request["shape"]))
        return time_crossing(*units, target, threads)
    if request["kind"] == "transform":
        candidate = build_transform(
            tuple(request["shape"]),
            request["dtype"],
            request["source"],
            request["destination"],
            request["unit"],
            target,
        )
    else:
        function = tvm.ir.load_json(request["function"])
        with database_of(request.get("record")):
            candidate = build_candidate(function, Decision.parse(request["decision"]), target)
    return time_candidate(candidate, threads)


def time_crossing(
    source: str, destination: str, target: tvm.target.Target, threads: int
) -> tuple[float, float, int]:
    """What a hand-over costs: a chain of tiny sub-graphs on units by turns, less the same chain on each alone."""
    chains = {
        units: time_candidate(
            build_chain([units[i % len(units)] for i in range(CHAIN)], target), threads
        )
        for units in ((source, destination), (source,), (destination,))
    }
    alternating, *alone = (median for median, _, _ in chains.values())
    runs = min(count for _, _, count in chains.values())
    spread = max(spread for _, spread, _ in chains.values()) / (CHAIN - 1)
    return max(alternating - sum(alone) / 2, 0.0) / (CHAIN - 1), spread, runs


def time_copy(source: str, destination: str, shape: tuple[int, ...]) -> tuple[float, float, int]:
    """What it costs to copy float32 of that shape from the memory of one unit to that of another."""
    value = random_array(relax.TensorType(shape, "float32"), 0)
    devices = [device_called(BACKENDS[unit].device) for unit in (source, destination)]
    there = tvm.runtime.tensor(value, devices[0])
    times_us = []
    for _ in range(COPIES):
        start = time.perf_counter()
        there.copyto(devices[1])
        for device in devices:
            device.sync()
        times_us.append(1e6 * (time.perf_counter() - start))
    lower, _, upper = statistics.quantiles(times_us, n=4)
    return lower, (upper - lower) / 2, COPIES


def time_candidate(candidate: Candidate, threads: int) -> tuple[float, float, int]:
    """Time and spread of one run of a candidate, microseconds, and how many runs were made.

    The candidate and the reference kernel are timed in turns. What interferes only ever adds time, so both are
    taken at their lower quartile, and the candidate's is scaled to the machine's best speed. Where the times scatter,
    everything is done once more, and the quietest attempt counts.
    """
    attempts: list[_Attempt] = []
    while len(attempts) < ATTEMPTS:
        attempts.append(_attempt(candidate))
        if attempts[-1].scatter <= QUIET or attempts[-1].runs == FEWEST:
            break
    best = min(attempts, key=lambda attempt: attempt.scatter)
    speed = best_reference(threads).speed(best.reference_us)
    us = best.us * max(speed, SLOWEST)
    spread_us = us * (best.scatter + max(SLOWEST - speed, 0.0))
    return us, spread_us, best.runs


@dataclass(frozen=True)
class _Attempt:
    """Lower quartiles of a candidate and of the reference kernel, timed in turns."""

    us: float
    reference_us: float
    scatter: float
    """Half the distance of the candidate's quartiles, as a share of `us`."""
    runs: int


def _attempt(candidate: Candidate) -> _Attempt:
    main = candidate.machine["main"]
    main(*candidate.arguments)
    candidate.device.sync()
    start = time.perf_counter()
    main(*candidate.arguments)
    candidate.device.sync()
    once_s = max(time.perf_counter() - start, 1e-6)
    number = max(1, min(2000, int(BUDGET_S / ROUNDS / once_s)))
    rounds = max(FEWEST, min(ROUNDS, int(SLOW_BUDGET_S / once_s)))
    evaluator = candidate.machine.time_evaluator("main", candidate.device, number=number, repeat=1)
    times_us, references_us = [], []
    for _ in range(rounds):
        references_us.append(time_reference())
        result = float(evaluator(*candidate.arguments).results[0])
        times_us.append(1e6 * result / candidate.copies)
    lower, _, upper = statistics.quantiles(times_us, n=4)
    reference_us = statistics.quantiles(references_us, n=4)[0]
    return _Attempt(lower, reference_us, (upper - lower) / 2 / lower, number * rounds)
