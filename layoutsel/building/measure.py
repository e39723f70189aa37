"""What a measuring process runs: build one candidate, time it. Called by name, in a child process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

import tvm

from layoutsel.building.candidate import (
    Candidate,
    build_candidate,
    build_chain,
    build_transform,
)
from layoutsel.runtime.threads import set_threads
from tvm_passes.cpu import host_target
from tvm_passes.decision import Decision

REPEATS = 9
CHAIN = 9
"""Sub-graphs in the chain that measures a hand-over."""
BUDGET_S = 0.12
"""Seconds of timing per candidate, warm-up excluded; building takes longer than that."""


def run_request(request: Mapping[str, Any]) -> tuple[float, float, int]:
    """Build and time what `request` describes.

    Returns
    -------
    tuple
        Median and spread (half the distance of the quartiles) of one run, microseconds, and how many runs were made.
    """
    set_threads(int(request["threads"]))
    target = host_target()
    if request["kind"] == "crossing":
        return time_crossing(request["source"], request["destination"], target)
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
        candidate = build_candidate(function, Decision.parse(request["decision"]), target)
    return time_candidate(candidate)


def time_crossing(
    source: str, destination: str, target: tvm.target.Target
) -> tuple[float, float, int]:
    """What a hand-over costs: a chain of tiny sub-graphs on units by turns, less the same chain on each alone."""
    chains = {
        units: time_candidate(build_chain([units[i % len(units)] for i in range(CHAIN)], target))
        for units in ((source, destination), (source,), (destination,))
    }
    alternating, *alone = (median for median, _, _ in chains.values())
    runs = min(count for _, _, count in chains.values())
    spread = max(spread for _, spread, _ in chains.values()) / (CHAIN - 1)
    return max(alternating - sum(alone) / 2, 0.0) / (CHAIN - 1), spread, runs


def time_candidate(candidate: Candidate) -> tuple[float, float, int]:
    """Median and spread of a candidate over :data:`REPEATS` batches of runs."""
    main = candidate.machine["main"]
    main(*candidate.arguments)
    start = time.perf_counter()
    main(*candidate.arguments)
    once_s = max(time.perf_counter() - start, 1e-6)
    number = max(1, min(2000, int(BUDGET_S / REPEATS / once_s)))
    evaluator = candidate.machine.time_evaluator("main", tvm.cpu(), number=number, repeat=REPEATS)
    results = [
        1e6 * result / candidate.copies for result in evaluator(*candidate.arguments).results
    ]
    quartiles = statistics.quantiles(results, n=4)
    spread_us = (quartiles[2] - quartiles[0]) / 2
    return statistics.median(results), spread_us, number * REPEATS
