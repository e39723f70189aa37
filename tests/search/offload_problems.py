"""Small problems of two devices, and what the planner says of their placements."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from layoutsel.search.offload.node_tensors import tensors_of_nodes
from layoutsel.search.offload.pricing import OffloadPrices
from layoutsel.search.offload.settings import SelectorState
from layoutsel.search.offload.slicing import OffloadChoice
from layoutsel.search.offload.supernet_shape import SupernetShape
from layoutsel.search.offload.times import FIRST, SECOND
from layoutsel.search.offload.transmitted import PRECISIONS
from layoutsel.search.operations import NONE, SKIP
from layoutsel.search.parts import SUM, parts_of
from layoutsel.search.placing import cluster_of, placed_us
from layoutsel.search.space import Architecture, Cell, Space
from tests.search.spaces import random_prices, routes_over, routes_over_links

MIXED = ("none", "skip", "conv1", "conv3", "max3")
"""Operations for which a channel that is not sent is the same as one that is zero."""


def small_space(
    nodes: tuple[int, ...] = (2, 2),
    operations: tuple[str, ...] = (*MIXED, "separable3"),
    channels: int = 6,
    data: str = "mnist1d",
) -> Space:
    """Cells for signals; the second one has a stride."""
    return Space(
        data=data,
        input_shape=(1, 1, 40),
        classes=10,
        stem_channels=channels,
        cells=tuple(
            Cell(
                name=f"c{number}",
                channels=(channels,),
                operations=operations,
                nodes=count,
                stride=(1, 2) if number == 1 else (1, 1),
            )
            for number, count in enumerate(nodes)
        ),
    )


LINKS = ("n1", "sw", "cell")
"""Links of :func:`priced` with several of them."""


def priced(
    space: Space, seed: int = 0, scale_us: float = 100.0, *, several_links: bool = False
) -> OffloadPrices:
    """Random prices on two different devices, the second one busy."""
    routes = routes_over_links() if several_links else routes_over(2)
    table = random_prices(space, routes.topology, seed, scale_us)
    return OffloadPrices(routes, lambda _missing: table, table)


def drawn_choice(space: Space, seed: int, links: tuple[str, ...] = ("",)) -> OffloadChoice:
    """A random network with a random placement that never returns to the first device.

    Sums are on the first device if all their inputs are, as relaxed selectors place them.
    """
    rng = random.Random(seed)
    architecture = space.draw(np.random.default_rng(seed))
    return replace(drawn_placement(space, architecture, rng), link=rng.choice(links))


def drawn_placement(space: Space, architecture: Architecture, rng: random.Random) -> OffloadChoice:
    graph = parts_of(space, architecture)
    devices = {"stem": FIRST}
    for part in graph.parts[1:-1]:
        stays = all(devices[tensor] == FIRST for tensor in part.inputs)
        if part.signature.operation != SUM:
            stays = stays and rng.random() < 0.7
        devices[part.name] = FIRST if stays else SECOND
    devices["head"] = SECOND
    kept = {
        part.name: tuple(
            sorted(
                rng.sample(range(part.signature.channels), rng.randint(1, part.signature.channels))
            )
        )
        for part in graph.parts[:-1]
    }
    return OffloadChoice(
        architecture=architecture,
        devices=devices,
        kept=kept,
        precision=rng.choice(list(PRECISIONS)),
    )


def one_hot(
    shape: SupernetShape, choice: OffloadChoice, links: tuple[str, ...] = ("",)
) -> SelectorState:
    """Selectors of probability 0 and 1 that choose a network, its placement and channels."""
    made = tensors_of_nodes(shape, choice.architecture)
    operations, resources = [], []
    channels = {"stem": gates(shape, "stem", choice)}
    for cell, chosen in zip(shape.cells, choice.architecture.operations, strict=True):
        own = np.zeros((len(cell.pairs), len(cell.operations)))
        first = np.zeros_like(own)
        for p, (pair, name) in enumerate(zip(cell.pairs, chosen, strict=True)):
            o = cell.operations.index(name)
            own[p, o] = 1.0
            if name not in (NONE, SKIP):
                first[p, o] = choice.devices[cell.output(pair)] == FIRST
            channels[cell.output(pair)] = gates(shape, cell.output(pair), choice)
        for number in range(1, cell.cell.nodes + 1):
            name = cell.node(number)
            # A node without a sum is the tensor that it equals.
            channels[name] = gates(shape, name, choice, made[name])
        operations.append(own)
        resources.append(first)
    return SelectorState(
        phase="test",
        time_weight=0.0,
        operations=tuple(operations),
        resources=tuple(resources),
        channels=channels,
        precision=np.array([float(name == choice.precision) for name in PRECISIONS]),
        position=np.eye(len(shape.cells))[transmission_cells(shape, choice.devices)[0]],
        link=np.array([float(name == choice.link) for name in links]),
        expected_us=0.0,
        expected_bytes=0.0,
    )


def transmission_cells(shape: SupernetShape, devices: dict[str, int]) -> list[int]:
    """Cells that may be the transmission cell of a placement."""
    held = [
        {device for part, device in devices.items() if part.partition(".")[0] == cell.name}
        for cell in shape.cells
    ]
    return [
        number
        for number in range(len(held))
        if all(SECOND not in one for one in held[:number])
        and all(FIRST not in one for one in held[number + 1 :])
    ]


def gates(shape, name, choice, tensor=None):
    found = np.zeros(dict(shape.sendable())[name][0])
    found[list(choice.kept.get(tensor or name, ()))] = 1.0
    return found


def planner_us(space: Space, prices: OffloadPrices, choice: OffloadChoice) -> tuple[float, int]:
    """Time by the planner of distributions with full parts, and the sent bytes."""
    graph = parts_of(space, choice.architecture)
    cluster = cluster_of(graph, prices.table, prices.links[choice.link])
    readers = {part.name: [] for part in graph.parts}
    for part in graph.parts:
        for tensor in part.inputs:
            if tensor in readers:
                readers[tensor].append(part.name)
    tensors, total = [], 0
    for tensor in cluster.graph.tensors:
        name = str(tensor.producer)
        crosses = (
            name in readers
            and choice.devices[name] == FIRST
            and any(choice.devices[reader] == SECOND for reader in readers[name])
        )
        if crosses:
            points = int(np.prod(graph.shape(name)[1:]))
            size = PRECISIONS[choice.precision] * points * len(choice.kept[name])
            total += size
            tensors.append(replace(tensor, bytes=size))
        else:
            tensors.append(tensor)
    cluster = replace(cluster, graph=replace(cluster.graph, tensors=tuple(tensors)))
    placement = {name: prices.nodes[device] for name, device in choice.devices.items()}
    return placed_us(cluster, placement), total


def placements(space: Space, architecture: Architecture) -> Iterator[dict[str, int]]:
    """All placements of a network that never return to the first device.

    Sums are on the first device exactly if all their inputs are.
    """
    graph = parts_of(space, architecture)
    names = [part.name for part in graph.parts[1:-1]]
    for devices in itertools.product((FIRST, SECOND), repeat=len(names)):
        held = {"stem": FIRST, **dict(zip(names, devices, strict=True)), "head": SECOND}
        if all(_fits(part, held) for part in graph.parts[1:]):
            yield held


def _fits(part, devices):
    is_local = all(devices[one] == FIRST for one in part.inputs)
    if part.signature.operation == SUM:
        return is_local == (devices[part.name] == FIRST)
    return is_local or devices[part.name] == SECOND
