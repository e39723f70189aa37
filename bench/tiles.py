"""Convolutions on tiles beside oneDNN's, in bf16 and split-bf16, every register block timed.

``python bench/tiles.py light:resnet50 --json bench/results/tiles.json``
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from itertools import product
from typing import Any

from ceilings import tile_products
from script import run

from layoutsel.building.candidate import build_candidate
from layoutsel.building.measure import time_candidate
from layoutsel.compile.session import Session
from layoutsel.cost.graph import Subgraph
from layoutsel.device.threads import set_threads
from tvm_passes.algorithms import algorithms_of
from tvm_passes.backends import BACKENDS
from tvm_passes.cpu import host_target
from tvm_passes.decision import Decision

TURNS = 5
PRECISIONS = ("bf16", "split-bf16")
ALGORITHMS = tuple(one.name for one in algorithms_of("amx"))
ASKED = (
    *product(("amx",), ("NHWC", "NCHW32c"), PRECISIONS, ALGORITHMS),
    *product(("onednn",), ("NHWC", "NCHW32c", "NCHW16c"), PRECISIONS, ("direct",)),
)
"""Unit, layout, precision and algorithm; what a unit declines is left out."""


def rows(model: str, threads: int) -> Iterator[dict[str, Any]]:
    """Every distinct convolution under every decision that units support."""
    session = Session.open(model, threads=threads, precision="auto")
    set_threads(threads)
    peak = tile_products(threads)
    distinct: dict[str, list[Subgraph]] = {}
    for subgraph in session.graph.subgraphs:
        if subgraph.anchor == "nn.conv2d":
            distinct.setdefault(subgraph.structural_hash, []).append(subgraph)
    for same in distinct.values():
        yield from _rows(session, same[0], len(same), peak())


def _rows(
    session: Session, subgraph: Subgraph, times: int, peak_gflops: float
) -> Iterator[dict[str, Any]]:
    function = session.functions[subgraph.id]
    decisions = [
        Decision(unit=unit, layout=layout, precision=precision, algorithm=algorithm)
        for unit, layout, precision, algorithm in ASKED
    ]
    candidates = {
        decision: build_candidate(function, decision, host_target())
        for decision in decisions
        if BACKENDS[decision.unit].supports(function, decision) is None
    }
    found: dict[Decision, list[float]] = {decision: [] for decision in candidates}
    for _ in range(TURNS):
        for decision, candidate in candidates.items():
            found[decision].append(time_candidate(candidate, session.threads)[0])
    for decision, measured in found.items():
        median = statistics.median(measured)
        yield {
            "model": session.model.name,
            "subgraph": subgraph.id,
            "times": times,
            "input": list(subgraph.inputs[0].shape),
            "weight": list(subgraph.weights[0].shape),
            "decision": str(decision),
            "median_us": round(median, 1),
            "least_us": round(min(measured), 1),
            "most_us": round(max(measured), 1),
            "gflops": round(subgraph.flops / median / 1e3),
            "tile_peak_gflops": round(peak_gflops),
        }


if __name__ == "__main__":
    run(rows, __doc__)
