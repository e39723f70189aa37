"""Time of planning for throughput by size: sub-graphs and nodes of random networks.

``python -m bench.partitioning.scale --json FILE``. Nodes differ in speed and in what they are good at; a message
occupies the interfaces and a little of the processors at both ends. In the largest case, 64 nodes are 8 classes of 8
equal ones: one of each class is planned for, and its resources have eight times the capacity. That is exact, as equal
nodes share the requests of a placement equally.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layoutsel.benchmarking.compare import save
from layoutsel.cost.tensor import Tensor, TensorUse
from layoutsel.planning.columns import best_mixture
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph
from layoutsel.planning.resources import Resources
from tvm_passes.decision import Decision, SubgraphId

CASES = ((200, 8, 1, 5.0), (2000, 16, 1, 60.0), (10_000, 8, 8, 300.0))
"""(Sub-graphs, classes, nodes per class, time limit in seconds)."""
_KINDS = 6
"""Kinds of work, at which nodes are differently good."""
_SKIPS = 0.3
"""Share of sub-graphs that also read an older tensor."""
_PROCESSOR = 0.05
"""Share of a message's time that occupies the processors."""


@dataclass(frozen=True)
class Interfaces:
    """Nodes with a processor, and an interface for each direction."""

    receivers_transform = False

    def compute(self, unit: str, memory: str, us: float) -> Resources:
        """Occupy the processor."""
        return Resources(busy_us={f"{memory} cpu": us})

    def boundary(self, kind: str, source: str, destination: str, us: float) -> list[Resources]:
        """Occupy both interfaces, and a share of both processors."""
        if kind != "copy":
            return [Resources(busy_us={f"{source} cpu": us})]
        ends = {f"{source} out": us, f"{destination} in": us}
        processors = {f"{one} cpu": _PROCESSOR * us for one in (source, destination)}
        return [Resources(busy_us={**ends, **processors})]


class SamePrice(Mapping[tuple[str, str], float]):
    """Price of a message between any two nodes."""

    def __init__(self, us: float) -> None:
        self._us = us

    def __getitem__(self, pair: tuple[str, str]) -> float:
        return self._us

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0


def network(subgraphs: int, nodes: int, seed: int = 0) -> PlanningProblem:
    """A random chain with skips over nodes of different speeds."""
    rng = random.Random(seed)
    speeds = [
        [rng.uniform(1, 6) * rng.uniform(0.5, 2) for _ in range(_KINDS)] for _ in range(nodes)
    ]
    places = [Decision(unit="cpu", node=f"n{j}") for j in range(nodes)]
    ids = [SubgraphId(f"s{i}") for i in range(subgraphs)]
    uses: dict[int, list[TensorUse]] = {i: [] for i in range(-1, subgraphs)}
    priced = []
    for i, id_ in enumerate(ids):
        sources = {i - 1}
        if i > 3 and rng.random() < _SKIPS:
            sources.add(i - rng.randint(2, 4))
        for position, source in enumerate(sorted(sources)):
            uses[source].append(TensorUse(consumer=id_, input_index=position))
        us, kind = rng.uniform(50, 500), rng.randrange(_KINDS)
        options = tuple(
            Option(
                decision=place,
                cost_us=us * speed[kind],
                in_layouts=("NCHW",) * len(sources),
                out_layouts=("NCHW",),
            )
            for place, speed in zip(places, speeds, strict=True)
        )
        priced.append(PricedSubgraph(id=id_, options=options))
    uses[subgraphs - 1].append(TensorUse(consumer=None, input_index=0))
    tensors = tuple(
        Tensor(
            producer=None if i < 0 else ids[i],
            output_index=0,
            uses=tuple(used),
            shape=(1,),
            copy_us=SamePrice(rng.uniform(30, 300)),
        )
        for i, used in uses.items()
        if used
    )
    return PlanningProblem(nodes=tuple(priced), tensors=tensors, resources=Interfaces())


def row(subgraphs: int, classes: int, each: int, limit_s: float) -> dict[str, Any]:
    """Plan one network."""
    problem = network(subgraphs, classes)
    ends = [f"{o.memory} {end}" for o in problem.nodes[0].options for end in ("cpu", "in", "out")]
    found = best_mixture(problem, capacity=dict.fromkeys(ends, float(each)), time_limit_s=limit_s)
    return {
        "subgraphs": subgraphs,
        "nodes": classes * each,
        "classes": classes,
        "requests_per_s": found.throughput * 1e6,
        "bound_per_s": found.bound * 1e6,
        "gap": found.gap,
        "pricings": found.pricings,
        "limit_s": limit_s,
        "time_s": found.time_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    rows = []
    for case in CASES:
        rows.append(row(*case))
        print(*rows[-1].values(), sep="\t", flush=True)
        save(arguments.json, rows)


if __name__ == "__main__":
    main()
