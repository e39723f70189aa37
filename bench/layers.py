"""What every sub-graph of a model attains in each precision mode, beside its own ceiling.

A sub-graph's ceiling is the least time that its arithmetic takes at the machine's peak for its precision (multiply-adds of
float32; products of tiles, of which split-bf16 takes three), or that memory takes to deliver its weights, whichever is longer;
the peaks are measured in turns with the sub-graphs. Activations are not counted: they may stay in caches.
``python bench/layers.py light:resnet50 --json bench/results/layers.json``
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

from ceilings import Measure, multiply_adds, stream, tile_products
from script import run

from layoutsel.building.candidate import build_candidate
from layoutsel.building.measure import time_candidate
from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.core.precision import BF16, F32, SPLIT_BF16
from layoutsel.cost.graph import Subgraph
from layoutsel.device.threads import set_threads
from tvm_passes import amx
from tvm_passes.cpu import host_target
from tvm_passes.decision import Decision

MODES = ("f32", "f32-grade", "bf16")
TURNS = 3
PRODUCTS: Mapping[str, int] = {F32: 1, SPLIT_BF16: 3, BF16: 1}
"""Products of one multiply-add, by precision."""
WEIGHT_BYTES: Mapping[str, int] = {F32: 4, SPLIT_BF16: 4, BF16: 2}


def rows(model: str, threads: int) -> Iterator[dict[str, Any]]:
    """Every distinct sub-graph with products under the decision that each mode's plan takes for it."""
    set_threads(threads)
    peaks: dict[str, Measure] = {"arithmetic": multiply_adds(threads), "memory": stream(threads)}
    if amx.unavailable() is None:
        peaks["tiles"] = tile_products(threads)
    for mode in MODES:
        session = Session.open(model, threads=threads, precision=mode)
        plan = best_plan(session, priced_problem(Offers.of(session)))
        count: dict[tuple[str, str], int] = {}
        for subgraph in session.graph.subgraphs:
            key = (subgraph.structural_hash, str(plan.decisions[subgraph.id]))
            count[key] = count.get(key, 0) + 1
        for subgraph in session.graph.subgraphs:
            decision = plan.decisions[subgraph.id]
            times = count.pop((subgraph.structural_hash, str(decision)), 0)
            if times and subgraph.weights:
                yield _row(session, mode, subgraph, decision, peaks) | {"times": times}


def _row(
    session: Session,
    mode: str,
    subgraph: Subgraph,
    decision: Decision,
    peaks: Mapping[str, Measure],
) -> dict[str, Any]:
    function = session.functions[subgraph.id]
    candidate = build_candidate(function, decision, host_target())
    by_tiles = decision.precision != F32 and "tiles" in peaks
    work = subgraph.flops * PRODUCTS[decision.precision]
    weights = sum(prod(weight.shape) for weight in subgraph.weights)
    found, shares = [], []
    for _ in range(TURNS):
        gflops = peaks["tiles" if by_tiles else "arithmetic"]()
        arithmetic_us = work / gflops / 1e3
        memory_us = weights * WEIGHT_BYTES[decision.precision] / peaks["memory"]() / 1e3
        found.append(time_candidate(candidate, session.threads)[0])
        shares.append(max(arithmetic_us, memory_us) / found[-1])
    median = statistics.median(found)
    return {
        "model": session.model.name,
        "mode": mode,
        "subgraph": subgraph.id,
        "input": list(subgraph.inputs[0].shape),
        "weight": list(subgraph.weights[0].shape),
        "unit": decision.unit,
        "layout": decision.layout,
        "precision": decision.precision,
        "algorithm": decision.algorithm,
        "median_us": round(median, 1),
        "gflops": round(subgraph.flops / median / 1e3),
        "bound": "arithmetic" if arithmetic_us >= memory_us else "memory",
        "share_of_ceiling": round(statistics.median(shares), 3),
        "least_share": round(min(shares), 3),
        "most_share": round(max(shares), 3),
    }


if __name__ == "__main__":
    run(rows, __doc__)
