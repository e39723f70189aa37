"""How near to the machine's peak the CPU unit's convolutions come.

Every convolution of a model is timed in turns with a loop of fused multiply-adds in registers, the most that the machine
can do at that moment: ``python bench/kernels.py light:resnet50 --json bench/results/cpu_kernels.json``
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from ceilings import multiply_adds
from script import run

from layoutsel.building.candidate import build_candidate
from layoutsel.building.measure import time_candidate
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.device.threads import set_threads
from tvm_passes.cpu import host_target

TURNS = 5


def rows(model: str, threads: int) -> Iterator[dict[str, Any]]:
    """Share of the peak of every distinct convolution in every layout and algorithm of the CPU unit."""
    session = Session.open(model, threads=threads, units=["cpu"])
    offers = Offers.of(session)
    set_threads(threads)
    gflops = multiply_adds(threads)
    seen = set()
    for subgraph in session.graph.subgraphs:
        if subgraph.anchor != "nn.conv2d" or subgraph.structural_hash in seen:
            continue
        seen.add(subgraph.structural_hash)
        activation, weight = subgraph.inputs[0], subgraph.weights[0]
        for decision in offers.candidates[subgraph.id].decisions:
            function = session.functions[subgraph.id]
            candidate = build_candidate(function, decision, host_target())
            times, shares = [], []
            for _ in range(TURNS):
                limit = gflops()
                times.append(time_candidate(candidate, threads)[0])
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
