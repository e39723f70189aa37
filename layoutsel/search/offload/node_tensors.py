"""Choices whose devices and channels are those of the parts that a network has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from layoutsel.search.offload.slicing import OffloadChoice
from layoutsel.search.offload.supernet_shape import SupernetShape
from layoutsel.search.operations import NONE, SKIP
from layoutsel.search.parts import parts_of
from layoutsel.search.space import Architecture


@dataclass(frozen=True, kw_only=True)
class ProjectedNetwork:
    """Most probable network within limits."""

    choice: OffloadChoice
    """Network, placement and channels."""
    us: float
    """Time at full widths of all parts, microseconds; that of the slices is at most this."""
    bytes: float
    """Sent bytes."""
    score: float
    """Sum of the logarithms of the probabilities."""
    bound: float
    """Proven upper bound of the score."""


def named_choice(
    shape: SupernetShape,
    architecture: Architecture,
    devices: Mapping[str, int],
    kept: Mapping[str, tuple[int, ...]],
    precision: str,
    link: str,
) -> OffloadChoice:
    """Make a choice whose devices and channels are those of parts that exist.

    The tensor of a node without a sum is that of the operation or node that it equals.
    """
    graph = parts_of(shape.space, architecture)
    made = {"stem": "stem", **tensors_of_nodes(shape, architecture)}
    channels: dict[str, tuple[int, ...]] = {}
    for tensor, ones in kept.items():
        channels.setdefault(made.get(tensor, tensor), ones)
    return OffloadChoice(
        architecture=architecture,
        devices={part.name: devices[part.name] for part in graph.parts},
        kept={name: ones for name, ones in channels.items() if name in graph.by_name},
        precision=precision,
        link=link,
    )


def tensors_of_nodes(shape: SupernetShape, architecture: Architecture) -> dict[str, str]:
    """Tensor of each computed node, by the node's name."""
    names = set(part.name for part in parts_of(shape.space, architecture).parts)
    found, before = {}, "stem"
    for cell, operations in zip(shape.cells, architecture.operations, strict=True):
        nodes = [before]
        for j in range(1, cell.cell.nodes + 1):
            chosen = {
                i: operations[cell.pairs.index((i, j))]
                for i in range(j)
                if operations[cell.pairs.index((i, j))] != NONE
            }
            if cell.node(j) in names:
                nodes.append(cell.node(j))
            else:
                ((i, name),) = chosen.items()
                nodes.append(nodes[i] if name == SKIP else cell.output((i, j)))
            found[cell.node(j)] = nodes[-1]
        before = nodes[-1]
    return found
