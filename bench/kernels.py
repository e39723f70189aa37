"""How near to the machine's peak the CPU unit's convolutions come.

Every convolution of a model is timed in turns with a loop of fused multiply-adds in registers, the most that the machine
can do at that moment: ``python bench/kernels.py light:resnet50 --json bench/results/cpu_kernels.json``
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tvm
from script import run

from layoutsel.building.candidate import build_candidate
from layoutsel.building.measure import time_candidate
from layoutsel.runtime.threads import set_threads
from layoutsel.session import Session
from tvm_passes.cpu import emit, host_target
from tvm_passes.cpu.host import vector_unit

TURNS = 5
_ROUNDS = 200_000
"""Iterations of the peak's loop; some milliseconds."""


def peak(threads: int) -> Callable[[], float]:
    """A function that measures the FMA peak, GFLOP/s, all threads together."""
    unit = vector_unit(host_target())
    chains = unit.registers - 4  # as many independent sums as registers hold beside the operands

    def body(buffers: list[emit.Buffer]) -> None:
        operand, result = buffers
        with emit.parallel(threads) as thread:
            sums = [emit.Accumulator(unit.lanes) for _ in range(chains)]
            for each in sums:
                each.zero()
            factor = emit.Accumulator(unit.lanes)
            factor.set(emit.load(operand, 0, unit.lanes))
            with emit.serial(_ROUNDS):
                for each in sums:
                    each.set(each.value * factor.value + factor.value)
            for index, each in enumerate(sums):
                base = (thread * chains + index) * unit.lanes
                emit.store(result, each.value, base, unit.lanes)

    shape = (threads * chains * unit.lanes,)
    function = emit.prim_func([((unit.lanes,), "float32"), (shape, "float32")], body)
    module = tvm.IRModule({"peak": function.with_attr("global_symbol", "peak")})
    run = tvm.compile(module, host_target())["peak"]
    operand = tvm.runtime.tensor(np.full(unit.lanes, 0.5, dtype=np.float32))
    result = tvm.runtime.tensor(np.zeros(shape, dtype=np.float32))
    flops = 2 * shape[0] * _ROUNDS

    def measure() -> float:
        times = []
        for _ in range(7):
            start = time.perf_counter()
            run(operand, result)
            times.append(time.perf_counter() - start)
        return flops / statistics.median(times) / 1e9

    return measure


def rows(model: str, threads: int) -> Iterator[dict[str, Any]]:
    """Share of the peak of every distinct convolution in every layout and algorithm of the CPU unit."""
    session = Session.open(model, threads=threads, units=["cpu"])
    set_threads(threads)
    gflops = peak(threads)
    seen = set()
    for subgraph in session.graph.subgraphs:
        if subgraph.anchor != "nn.conv2d" or subgraph.structural_hash in seen:
            continue
        seen.add(subgraph.structural_hash)
        activation, weight = subgraph.inputs[0], subgraph.weights[0]
        for decision in session.candidates[subgraph.id].decisions:
            function = session.graph.functions[subgraph.id]
            candidate = build_candidate(function, decision, host_target())
            times, shares = [], []
            for _ in range(TURNS):
                limit = gflops()
                times.append(time_candidate(candidate)[0])
                shares.append(subgraph.flops / times[-1] / 1e3 / limit)
            yield {
                "model": session.model.name,
                "subgraph": subgraph.id,
                "input": list(activation.shape),
                "weight": list(weight.shape),
                "decision": str(decision),
                "median_us": round(statistics.median(times), 1),
                "share_of_peak": round(statistics.median(shares), 3),
                "least_share": round(min(shares), 3),
                "most_share": round(max(shares), 3),
            }


if __name__ == "__main__":
    run(rows, __doc__)
