"""Exact fronts over architecture and placement: processor time, labels, and equality with brute force.

``PYTHONPATH=bench python -m search.fronts --json bench/results/search_fronts.json``. Spaces are chains of layers on nodes
around a switch. Prices grow with the work of a part, with random factors for each node, and scores grow with the work as
well: independent ones would have far smaller fronts.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from layoutsel.benchmarking.compare import save
from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.topology import Header, Link, Node, Topology
from layoutsel.search.dominance import non_dominated
from layoutsel.search.front import Scores
from layoutsel.search.label_setting import front_of
from layoutsel.search.operations import OPERATIONS
from layoutsel.search.parts import parts_of, signatures_of
from layoutsel.search.placing import classes_of, cluster_of, placed, placed_us
from layoutsel.search.prices import ClassPrices, PriceTable
from layoutsel.search.product_graph import ProductGraph, product_graph
from layoutsel.search.space import Architecture, Cell, Space

LARGE = (
    {"layers": 12, "nodes": 6},
    {"layers": 12, "nodes": 6, "pairs": True},
    {"layers": 12, "nodes": 6, "widths": (8, 16)},
    {"layers": 12, "nodes": 6, "widths": (8, 16), "pairs": True},
    {"layers": 12, "nodes": 6, "memory": 0.2, "limited": 1},
    {"layers": 12, "nodes": 6, "memory": 0.2, "limited": 2},
    {"layers": 12, "nodes": 6, "memory": 0.2, "limited": 6},
    {"layers": 24, "nodes": 10},
)
"""Cases without brute force; eight operations each."""
SMALL = (
    {"layers": 2, "nodes": 2, "operations": ("skip", "conv1", "conv3", "max3")},
    {"layers": 3, "nodes": 2, "operations": ("skip", "conv3", "separable3"), "pairs": True},
    {"layers": 2, "nodes": 3, "operations": ("skip", "conv3", "conv5"), "widths": (8, 12)},
    {
        "layers": 2,
        "nodes": 3,
        "operations": ("skip", "conv3", "conv5"),
        "memory": 0.5,
        "limited": 3,
    },
)
"""Cases that brute force can answer: at most about 10,000 pairs of a network and a placement."""
EIGHT = tuple(name for name in OPERATIONS if name != "none")
SEEDS = 5
TIME_LIMIT_S = 300.0


def star(nodes: int, memory: float | None = None, limited: int = 0) -> Topology:
    """Nodes of different classes around a switch; the memory of the fastest ones is limited."""
    return Topology(
        directed=False,
        multigraph=False,
        graph=Header(schema_version=1, origin="n0"),
        nodes=(
            *(
                Node(
                    id=f"n{i}", threads=i + 1, memory_bytes=memory if i >= nodes - limited else None
                )
                for i in range(nodes)
            ),
            Node(id="switch", kind="switch"),
        ),
        links=tuple(
            Link(source=f"n{i}", target="switch", gbps=0.05, rtt_us=100.0) for i in range(nodes)
        ),
    )


def space_of(layers: int, operations: tuple[str, ...], widths: tuple[int, ...]) -> Space:
    """A chain for images of 12 × 12."""
    return Space(
        data="mnist5k",
        input_shape=(1, 12, 12),
        classes=10,
        stem_channels=widths[0],
        cells=tuple(
            Cell(name=f"layer{number}", channels=widths, operations=operations)
            for number in range(layers)
        ),
    )


def prices_of(space: Space, topology: Topology, random: np.random.Generator) -> PriceTable:
    """Times by work, with random factors; the later nodes are up to three times as fast."""
    found = {}
    names = sorted(set(classes_of(topology).values()))
    for name, speed in zip(names, np.linspace(1, 3, len(names)), strict=True):
        us = {
            str(one): (5 + one.weight_bytes * float(np.prod(one.output_shape[1:])) / 4e3)
            / speed
            * random.uniform(0.8, 1.2)
            for one in signatures_of(space)
        }
        found[name] = ClassPrices(us=us, spread_us=dict.fromkeys(us, 0.0))
    return PriceTable(classes=found)


def scores_of(graph: ProductGraph, random: np.random.Generator, *, pairs: bool) -> Scores:
    """Scores that grow with the root of the work."""
    work = [layer.compute_us[0, :, 0] for layer in graph.layers[1:-1]]
    single = tuple(np.sqrt(one) * random.uniform(0.7, 1.3, len(one)) for one in work)
    sizes = itertools.pairwise(map(len, work))
    return Scores(
        single=single, pairs=tuple(random.normal(0, 0.3, size) for size in sizes) if pairs else ()
    )


def score_of(space: Space, scores: Scores, network: Architecture) -> float:
    """Score of a network, by its definition."""
    index = [
        cell.operations.index(operation) * len(cell.channels) + cell.channels.index(channels)
        for cell, (operation,), channels in zip(
            space.cells, network.operations, network.channels, strict=True
        )
    ]
    total = sum(one[i] for one, i in zip(scores.single, index, strict=True))
    return total + sum(
        one[i] for one, i in zip(scores.pairs, itertools.pairwise(index), strict=False)
    )


def every_point(
    space: Space, table: PriceTable, routes: MessageRoutes, scores: Scores, graph: ProductGraph
) -> Iterator[tuple[float, float]]:
    """Time and score of every network with every placement that fits."""
    from layoutsel.cluster.memory import excess, peaks

    for network in space.architectures():
        parts = parts_of(space, network)
        cluster = cluster_of(parts, table, routes)
        score = score_of(space, scores, network)
        for nodes in itertools.product(graph.nodes, repeat=len(parts.parts)):
            placement = placed(
                parts, {part.name: node for part, node in zip(parts.parts, nodes, strict=True)}
            )
            if not list(excess(cluster, peaks(cluster, [placement]))):
                yield placed_us(cluster, placement), score


def row(case: dict[str, Any], seed: int, *, check: bool) -> dict[str, Any]:
    """One instance: the front, its time, and the answer of brute force."""
    random = np.random.default_rng(seed)
    operations, widths = case.get("operations", EIGHT), case.get("widths", (8,))
    space = space_of(case["layers"], operations, widths)
    free = star(case["nodes"])
    table = prices_of(space, free, random)
    whole = product_graph(space, table, MessageRoutes(free))
    share = case.get("memory")
    most = sum(float(layer.weight_bytes.max()) for layer in whole.layers)
    topology = free if share is None else star(case["nodes"], share * most + 2e4, case["limited"])
    routes = MessageRoutes(topology)
    begin = time.process_time()
    graph = product_graph(space, table, routes)
    scores = scores_of(whole, random, pairs=case.get("pairs", False))
    made = time.process_time()
    found = front_of(graph, scores, time_limit_s=TIME_LIMIT_S)
    ended = time.process_time()
    result = {
        "layers": case["layers"],
        "operations": len(operations),
        "widths": len(widths),
        "nodes": case["nodes"],
        "pairs_score": case.get("pairs", False),
        "memory_share": share,
        "limited_nodes": case.get("limited", 0),
        "seed": seed,
        "networks": space.size,
        "front": len(found.points),
        "labels": found.labels,
        "proven": found.is_proven,
        "graph_cpu_s": round(made - begin, 3),
        "front_cpu_s": round(ended - made, 3),
    }
    if check:
        points = list(every_point(space, table, routes, scores, graph))
        us, score = (np.array(one) for one in zip(*points, strict=True))
        kept = non_dominated(us, score, np.zeros((len(us), 0)))
        got = [(point.us, point.score) for point in found.points]
        expected = list(zip(us[kept], score[kept], strict=True))
        result |= {
            "pairs": len(points),
            "equal": len(got) == len(expected) and bool(np.allclose(got, expected, rtol=1e-9)),
        }
    return result


def main() -> None:
    """Print and save all cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    rows = []
    for check, cases in ((True, SMALL), (False, LARGE)):
        for case, seed in itertools.product(cases, range(SEEDS)):
            rows.append(row(case, seed, check=check))
            print(*rows[-1].values(), sep="\t", flush=True)
            save(arguments.json, rows)


if __name__ == "__main__":
    main()
