"""Matrix products whose operands stay in cache: what they attain of the machine's rate of multiply-adds or tile products.

``python bench/products.py 512x512x512 256x1024x512 --json bench/results/products.json``
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tvm
from ceilings import Measure, multiply_adds, tile_products
from script import run
from tvm import relax

from layoutsel.building.candidate import build_candidate
from layoutsel.building.measure import time_candidate
from layoutsel.compile.session import Session
from layoutsel.device.threads import set_threads
from tvm_passes.algorithms import algorithms_of
from tvm_passes.backends import BACKENDS
from tvm_passes.cpu import host_target
from tvm_passes.decision import Decision

TURNS = 9


def product(rows: int, depth: int, columns: int) -> tvm.IRModule:
    """A module that multiplies an activation with a constant matrix."""
    x = relax.Var("x", relax.TensorType((rows, depth), "float32"))
    matrix = np.random.default_rng(0).standard_normal((depth, columns), dtype=np.float32)
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(relax.op.matmul(x, relax.const(matrix)))
        builder.emit_func_output(result)
    return builder.get()


PEAKS: Mapping[str, Callable[[int], Measure]] = {
    "f32": multiply_adds,
    "bf16": tile_products,
    "split-bf16": tile_products,
}
"""Rate that a precision is compared with."""
UNITS = {"f32": ("cpu", "onednn"), "bf16": ("amx", "onednn"), "split-bf16": ("amx", "onednn")}
"""Units by precision."""


def rows(shape: str, threads: int) -> Iterator[dict[str, Any]]:
    """Every precision and blocking of the product ``MxKxN``, the machine's peaks measured between."""
    set_threads(threads)
    session = Session.open(product(*map(int, shape.split("x"))), threads=threads, precision="auto")
    (subgraph,) = (one for one in session.graph.subgraphs if one.anchor == "matmul")
    function = session.functions[subgraph.id]
    decisions = [
        Decision(unit=unit, precision=precision, algorithm=one.name)
        for precision, units in UNITS.items()
        for unit in units
        for one in algorithms_of(unit)
        if one.name != "tuned"
    ]
    candidates = {
        decision: build_candidate(function, decision, host_target(), copies=1)
        for decision in decisions
        if BACKENDS[decision.unit].supports(function, decision) is None
    }
    kinds = {PEAKS[decision.precision] for decision in candidates}
    peaks = {kind: kind(threads) for kind in kinds}
    shares: dict[Decision, list[float]] = {decision: [] for decision in candidates}
    for _ in range(TURNS):
        for decision, candidate in candidates.items():
            products = 3 if decision.precision == "split-bf16" else 1
            gflops = products * subgraph.flops / time_candidate(candidate, threads)[0] / 1e3
            shares[decision].append(gflops / peaks[PEAKS[decision.precision]]())
    for decision, found in shares.items():
        yield {
            "product": shape,
            "decision": str(decision),
            "share_of_peak": round(statistics.median(found), 3),
            "least": round(min(found), 3),
            "most": round(max(found), 3),
        }


if __name__ == "__main__":
    run(rows, __doc__)
