"""Placements of given networks that a search is compared with, and choices without one selector."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from layoutsel.exits.training.data import LabelledSamples
from layoutsel.planning.objectives import decide
from layoutsel.search.offload.pricing import OffloadPrices
from layoutsel.search.offload.slicing import OffloadChoice
from layoutsel.search.offload.times import FIRST, SECOND
from layoutsel.search.parts import INPUT, PartGraph, parts_of
from layoutsel.search.placing import placed_us
from layoutsel.search.space import Architecture, Space

INPUT_LEVELS = 256
"""Values of a compressed input: one byte a point."""


@dataclass(frozen=True, kw_only=True)
class PlacedNetwork:
    """A network with all its channels on two devices."""

    name: str
    """Kind of placement."""
    us: float
    """Time of a request, microseconds."""
    bytes: float
    """Bytes sent to the second device."""
    devices: Mapping[str, int]
    """Device by part."""
    link: str
    """Link that takes the least time."""


def placements_of(
    space: Space, architecture: Architecture, prices: OffloadPrices
) -> list[PlacedNetwork]:
    """Place a network in the ways that need no search.

    Returns
    -------
    list
        ``first device`` and ``second device`` alone, ``one split`` after the best part at which
        one tensor is sent, and ``best split``: the planner's optimum. Each has its best link.
    """
    graph = parts_of(space, architecture)
    names = [part.name for part in graph.parts]
    cuts = [
        {name: FIRST if number < cut else SECOND for number, name in enumerate(names)}
        for cut in range(1, len(names))
    ]
    single = [devices for devices in cuts if len(_crossing(graph, devices)) == 1]
    return [
        placed(graph, prices, "first device", dict.fromkeys(names, FIRST)),
        placed(graph, prices, "second device", dict.fromkeys(names, SECOND)),
        min((placed(graph, prices, "one split", one) for one in single), key=lambda one: one.us),
        min(
            (
                placed(graph, prices, "best split", _optimum(graph, prices, link))
                for link in prices.links
            ),
            key=lambda one: one.us,
        ),
    ]


def compressed_input(
    space: Space, architecture: Architecture, prices: OffloadPrices, samples: LabelledSamples
) -> PlacedNetwork:
    """Send the input as bytes, packed by zlib, to a network on the second device.

    Parameters
    ----------
    space, architecture
        Network.
    prices
        Prices.
    samples
        Inputs whose mean packed size counts. Packing itself counts as free.
    """
    graph = parts_of(space, architecture)
    names = [part.name for part in graph.parts]
    devices, size = dict.fromkeys(names, SECOND), packed_bytes(samples)
    every = []
    for link, routes in prices.links.items():
        found = _placed_over(link, graph, prices, "compressed input", devices)
        line = routes.route(*prices.nodes).line
        us = found.us - line.at(found.bytes) + line.at(size)
        every.append(replace(found, us=us, bytes=size))
    return min(every, key=lambda one: one.us)


def packed_bytes(samples: LabelledSamples) -> float:
    """Mean size of inputs in :data:`INPUT_LEVELS` values that zlib has packed, bytes."""
    low, high = samples.inputs.min(), samples.inputs.max()
    levels = np.round((samples.inputs - low) / (high - low) * (INPUT_LEVELS - 1)).astype(np.uint8)
    return float(np.mean([min(len(zlib.compress(one.tobytes(), 9)), one.size) for one in levels]))


def placed(
    graph: PartGraph, prices: OffloadPrices, name: str, devices: Mapping[str, int]
) -> PlacedNetwork:
    """Predict the cost of a placement over its best link.

    Tensors that return to the first device cost as well.
    """
    every = (_placed_over(link, graph, prices, name, devices) for link in prices.links)
    return min(every, key=lambda one: one.us)


def _placed_over(
    link: str, graph: PartGraph, prices: OffloadPrices, name: str, devices: Mapping[str, int]
) -> PlacedNetwork:
    cluster = prices.whole(graph, link)
    placement = {part: prices.nodes[device] for part, device in devices.items()}
    sizes = {str(one.producer or INPUT): one.bytes for one in cluster.graph.tensors}
    return PlacedNetwork(
        name=name,
        us=placed_us(cluster, placement),
        bytes=sum(sizes[tensor] for tensor in _crossing(graph, devices)),
        devices=devices,
        link=link,
    )


def with_random_channels(choice: OffloadChoice, space: Space, seed: int) -> OffloadChoice:
    """Replace the sent channels by as many random ones."""
    rng = np.random.default_rng(seed)
    graph = parts_of(space, choice.architecture)
    kept = {
        tensor: tuple(sorted(rng.permutation(graph.shape(tensor)[0])[: len(ones)].tolist()))
        for tensor, ones in choice.kept.items()
    }
    return replace(choice, kept=kept)


def _optimum(graph: PartGraph, prices: OffloadPrices, link: str) -> dict[str, int]:
    """Placement of the least time over a link, by the planner."""
    cluster = prices.whole(graph, link)
    found = decide(cluster.problem).solution.decisions
    return {part: prices.nodes.index(node) for part, node in cluster.placement(found).items()}


def _crossing(graph: PartGraph, devices: Mapping[str, int]) -> list[str]:
    """Tensors that the first device sends to the second."""
    sources = {INPUT: FIRST, **devices}
    return [
        tensor
        for tensor, device in sources.items()
        if device == FIRST
        and any(devices[p.name] == SECOND and tensor in p.inputs for p in graph.parts)
    ]
