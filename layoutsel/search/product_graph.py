"""Product graph of a search space and a topology: architecture and placement as one path.

A vertex is a layer's choice of operation and channels, and a node that computes it. An edge takes
the time of the computation, and of the layer's input on its way from the node of the layer before.
The sum along a path is the price of the network with its placement as the planner of distributions
states it (:mod:`layoutsel.search.placing`). ``skip`` computes nothing and leaves its input where it
is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np

from layoutsel.cluster.links import MessageRoutes
from layoutsel.search.operations import NONE, OPERATIONS, STEM, OperationShape, Shape, Stride
from layoutsel.search.parts import (
    HEAD,
    PartSignature,
    head_signature,
    operation_signature,
    stem_signature,
    tensor_bytes,
)
from layoutsel.search.placing import INFERENCE, SearchWork, classes_of, gradient_factor
from layoutsel.search.prices import PriceTable
from layoutsel.search.space import Space
from tvm_passes.errors import LayoutselError


class LayerChoice(NamedTuple):
    """One way to fill a layer."""

    operation: str
    """Operation."""
    channels: int
    """Channels that it makes."""


class WideCell(LayoutselError):
    """A cell with inner nodes, which is no layer of a chain."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """Edges that lead to one layer."""

    choices: tuple[LayerChoice, ...]
    """Ways to fill it."""
    is_legal: np.ndarray
    """True if a choice can follow one of the layer before, (choices before, choices)."""
    is_part: np.ndarray
    """False if nothing is computed, (choices before, choices)."""
    compute_us: np.ndarray
    """Time of the computation, (choices before, choices, nodes), microseconds."""
    transfer_us: np.ndarray
    """Time of the input from node to node, (choices before, nodes, nodes), microseconds."""
    weight_bytes: np.ndarray
    """Weights that the node holds, (choices before, choices), bytes."""
    live_bytes: np.ndarray
    """Tensors that the node holds for this layer alone, (choices before, choices), bytes."""
    kept_bytes: np.ndarray
    """Tensors that the node keeps for gradients, (choices before, choices), bytes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ProductGraph:
    """All networks of a space with all placements."""

    space: Space
    """Search space; each cell is a layer."""
    nodes: tuple[str, ...]
    """Nodes that compute, the origin first."""
    layers: tuple[Layer, ...]
    """First convolution, cells, and head."""
    return_us: np.ndarray
    """Time of the result from each node to the origin, with the engine's own time of a request,
    (nodes,), microseconds."""
    capacity: np.ndarray
    """Memory of each node for weights and tensors, (nodes,), bytes; infinite without a limit."""


def product_graph(
    space: Space, table: PriceTable, routes: MessageRoutes, work: SearchWork = INFERENCE
) -> ProductGraph:
    """Make the product graph of a space and a topology.

    Parameters
    ----------
    space
        Search space of layers.
    table
        Prices on the machine classes of the topology.
    routes
        Topology in its present state.
    work
        SearchWork of a request.

    Raises
    ------
    WideCell
        If a cell has more than one node.
    UnpricedPart
        If a part has no price on some class.
    """
    for cell in space.cells:
        if cell.nodes > 1:
            raise WideCell(
                f"cell {cell.name!r} has {cell.nodes} nodes: expected cells of one node, which are "
                "layers of a chain"
            )
    origin = routes.topology.origin
    ids = (node.id for node in routes.topology.computing)
    nodes = tuple(sorted(ids, key=lambda id_: id_ != origin))
    maker = _LayerMaker(nodes, table, routes, work)
    stem = (LayerChoice(STEM, space.stem_channels),)
    first = LayerChoice("", space.input_shape[0])
    layers = [
        maker.layer((first,), space.input_shape[1:], stem, partial(_stem, space), is_first=True)
    ]
    before: tuple[LayerChoice, ...] = stem
    shapes = space.input_shapes([cell.channels[0] for cell in space.cells])
    for cell, shape in zip(space.cells, shapes, strict=False):
        choices = tuple(map(LayerChoice._make, itertools.product(cell.operations, cell.channels)))
        edge_to = partial(_operation, cell.stride)
        layers.append(maker.layer(before, shape[1:], choices, edge_to))
        before = choices
    head = (LayerChoice(HEAD, space.classes),)
    layers.append(maker.layer(before, shapes[-1][1:], head, partial(_head, space)))
    result = tensor_bytes((space.classes,))
    return ProductGraph(
        space=space,
        nodes=nodes,
        layers=tuple(layers),
        return_us=maker.return_us(result) + routes.engine.request_us,
        capacity=maker.capacities(tensor_bytes(space.input_shape) + result * maker.copies),
    )


class _Edge(NamedTuple):
    """A choice after another one."""

    is_legal: bool
    """True if the choice can follow."""
    signature: PartSignature | None
    """Part that it adds; None for none."""


_EdgeTo = Callable[[Shape, LayerChoice], _Edge]
"""Function of (shape of the input, choice)."""


def _stem(space: Space, _read: Shape, _choice: LayerChoice) -> _Edge:
    return _Edge(True, stem_signature(space))


def _head(space: Space, read: Shape, _choice: LayerChoice) -> _Edge:
    return _Edge(True, head_signature(space, read))


def _operation(stride: Stride, read: Shape, choice: LayerChoice) -> _Edge:
    geometry = OperationShape(input_shape=read, channels=choice.channels, stride=stride)
    is_legal = choice.operation != NONE and OPERATIONS[choice.operation].allows(geometry)
    return _Edge(is_legal, operation_signature(choice.operation, geometry) if is_legal else None)


@dataclass(frozen=True)
class _LayerMaker:
    """Prices of layers on the nodes of a topology."""

    nodes: tuple[str, ...]
    """Nodes that compute, the origin first."""
    table: PriceTable
    """Prices on their classes."""
    routes: MessageRoutes
    """Topology in its present state."""
    work: SearchWork
    """SearchWork of a request."""

    @cached_property
    def classes(self) -> Mapping[str, str]:
        """Machine class of each node."""
        return classes_of(self.routes.topology)

    @property
    def copies(self) -> int:
        """Number of tensors that weights and results need: themselves, and their gradients."""
        return 2 if self.work.has_gradients else 1

    def layer(
        self,
        before: Sequence[LayerChoice],
        axes: Shape,
        choices: tuple[LayerChoice, ...],
        edge_to: _EdgeTo,
        *,
        is_first: bool = False,
    ) -> Layer:
        """Make a layer with all edges from the choices `before` it."""
        shapes = [(one.channels, *axes) for one in before]
        edges = [[edge_to(shape, choice) for choice in choices] for shape in shapes]
        read = _table(edges, lambda signature: tensor_bytes(signature.input_shape))
        made = _table(edges, lambda signature: tensor_bytes(signature.output_shape))
        # Gradients need the inputs to the end, and those of the network's input are not computed.
        kept = read if self.work.has_gradients else 0 * read
        is_freed = not (self.work.has_gradients and is_first)
        return Layer(
            choices=choices,
            is_legal=np.array([[edge.is_legal for edge in row] for row in edges]),
            is_part=np.array([[e.signature is not None for e in row] for row in edges]),
            compute_us=np.array(
                [[self._compute_us(e.signature, is_first=is_first) for e in row] for row in edges]
            ),
            transfer_us=np.stack(
                [self.input_us(tensor_bytes(one), is_first=is_first) for one in shapes]
            ),
            weight_bytes=_table(edges, lambda signature: signature.weight_bytes) * self.copies,
            live_bytes=made + read * is_freed,
            kept_bytes=kept,
        )

    def _compute_us(self, signature: PartSignature | None, *, is_first: bool) -> list[float]:
        """Time of a part on each node."""
        if signature is None:
            return [0.0] * len(self.nodes)
        passes = 1.0
        if self.work.has_gradients:
            passes += gradient_factor(signature, is_first=is_first)
        state = self.routes.statistics
        return [
            passes * self.table.us(signature, self.classes[node]) * state.slowdown(node)
            + (self.routes.call_us(node) if is_first else 0.0)
            for node in self.nodes
        ]

    def input_us(self, size: float, *, is_first: bool) -> np.ndarray:
        """Time of a part's input from node to node, (nodes, nodes).

        Its gradient goes the opposite way; the network's input has none.
        """
        found = self._transfers(size, made=not is_first)
        return found + found.T if self.work.has_gradients and not is_first else found

    def return_us(self, size: float) -> np.ndarray:
        """Time of the result to the origin, (nodes,); the gradient of the loss goes back."""
        found = self._transfers(size, read=False)[:, 0]
        return found + self._transfers(size, made=False)[0] if self.work.has_gradients else found

    def _transfers(self, size: float, *, made: bool = True, read: bool = True) -> np.ndarray:
        """Time of a tensor of `size` bytes from node to node, (nodes, nodes)."""
        found = np.zeros((len(self.nodes), len(self.nodes)))
        for (i, source), (j, destination) in itertools.permutations(enumerate(self.nodes), 2):
            line = self.routes.hand_over(source, destination, made=made, read=read)
            found[i, j] = line.at(size)
        return found

    def capacities(self, request_bytes: float) -> np.ndarray:
        """Memory of each node without what the origin keeps of a request, bytes."""
        found = []
        for number, node in enumerate(self.nodes):
            own = self.routes.topology.by_id[node].memory_bytes
            limits = (own, self.routes.statistics.free_bytes(node))
            least = min((limit for limit in limits if limit is not None), default=np.inf)
            found.append(least - (request_bytes if number == 0 else 0.0))
        return np.array(found)


def _table(edges: Sequence[Sequence[_Edge]], value: Callable[[PartSignature], float]) -> np.ndarray:
    """Values of the parts of edges, (choices before, choices); 0 where there is none."""
    return np.array(
        [[0.0 if e.signature is None else float(value(e.signature)) for e in row] for row in edges]
    )
