"""Networks that are asked by exact fronts of the surrogate, with or without the joint placement."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from layoutsel.cluster.statistics import Statistics
from layoutsel.search.fastest import only
from layoutsel.search.front import FrontPoint, Scores
from layoutsel.search.joint.asking import AskedNetworks
from layoutsel.search.label_setting import front_within
from layoutsel.search.prices import PriceTable
from layoutsel.search.product_graph import ProductGraph, product_graph
from layoutsel.search.run_folder import RunFolder, SearchQuestion
from layoutsel.search.space import Architecture
from search.joint_task import Task

LAYERS = ("conv3", "conv5", "separable3", "separable5")
"""Operations of hand-made networks, by preference."""


def surrogate(
    task: Task, seed: int, make: Callable[[RunFolder], AskedNetworks], asked: SearchQuestion
) -> list[Architecture]:
    """Ask by exact fronts of the surrogate."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.begin(Path(folder) / "run", replace(asked, seed=seed), Path(folder))
        found = make(run)
        while chosen := found.next():
            found.add(chosen, task.oracle(chosen))
        return list(found.accuracies)


def joint(task: Task, seed: int) -> list[Architecture]:
    return surrogate(task, seed, lambda run: AskedNetworks(run, task.table), task.question)


def search_then_split(task: Task, seed: int) -> list[Architecture]:
    """Search for one node without links and limits of memory; placements come afterwards."""
    nodes = tuple(replace(one, memory_bytes=None) for one in task.question.topology.nodes[:1])
    alone = replace(task.question, topology=replace(task.question.topology, nodes=nodes, links=()))
    alone = replace(alone, statistics=Statistics())
    return surrogate(task, seed, lambda run: AskedNetworks(run, task.table), alone)


def handmade(task: Task) -> Architecture:
    """Convolutions with a kernel of 3 and the larger widths that fit."""
    for operation, widest in itertools.product(LAYERS, (True, False)):
        network = Architecture(
            channels=tuple((max if widest else min)(cell.channels) for cell in task.space.cells),
            operations=tuple((operation,) for _ in task.space.cells),
        )
        if task.point(network) is not None:
            return network
    raise AssertionError("no hand-made network fits")


class FixedPlacement(AskedNetworks):
    """Networks on nodes that were chosen before."""

    def __init__(self, run: RunFolder, table: PriceTable, nodes: Sequence[int]) -> None:
        super().__init__(run, table)
        self.nodes = nodes
        self.graph = fixed(self.graph, nodes)
        self._points.clear()

    def _fastest(self, network: Architecture) -> FrontPoint | None:
        graph = product_graph(only(self.space, network), self.table, self._routes)
        front = front_within(fixed(graph, self.nodes), Scores(single=()))
        return None if front is None else front.points[0]


def fixed(graph: ProductGraph, nodes: Sequence[int]) -> ProductGraph:
    """Copy whose layers run on given nodes alone."""
    layers = []
    for layer, node in zip(graph.layers, nodes, strict=True):
        compute = np.full_like(layer.compute_us, np.inf)
        compute[..., node] = layer.compute_us[..., node]
        layers.append(replace(layer, compute_us=compute))
    return replace(graph, layers=tuple(layers))


def nodes_of(task: Task, network: Architecture) -> list[int]:
    """Number of the node of each layer in the fastest placement of a network."""
    point = task.point(network)
    assert point is not None
    graph = product_graph(task.space, task.table, task.routes)
    names = ["stem", *(f"{cell.name}.0-1" for cell in task.space.cells), "head"]
    return [graph.nodes.index(point.nodes[name]) for name in names]


def split_then_search(task: Task, seed: int) -> list[Architecture]:
    """Search with the best placement of the hand-made network."""
    nodes = nodes_of(task, handmade(task))
    return surrogate(task, seed, lambda run: FixedPlacement(run, task.table, nodes), task.question)
