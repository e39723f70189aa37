"""Boundary prices of a planning problem, from a cost model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product

from layoutsel.cost.place import Place
from layoutsel.cost.tensor import KINDS, Tensor, is_boundary
from layoutsel.planning.problem import PricedSubgraph, source_places, wanted_places
from tvm_passes.decision import SubgraphId


@dataclass(frozen=True, kw_only=True)
class UnpricedBoundary:
    """A boundary of one tensor that some choice of candidates needs."""

    kind: str
    """``transform``, ``crossing`` or ``copy``."""
    tensor: Tensor
    """Tensor that passes the boundary."""
    source: Place
    """A possible place of the producer; others with the same :attr:`names` have the same price."""
    destination: Place
    """A possible place of the consumer."""

    @property
    def names(self) -> tuple[str, str]:
        """Names of both ends: layouts of a transform, units of a crossing, memories of a copy."""
        end = KINDS[self.kind]
        return end(self.source), end(self.destination)


PriceBoundaries = Callable[[Sequence[UnpricedBoundary]], Sequence[float]]
"""Function that prices boundaries, microseconds, in order."""


def price_all(
    tensors: Iterable[Tensor], nodes: Iterable[PricedSubgraph], prices: PriceBoundaries
) -> tuple[Tensor, ...]:
    """Price the boundaries of `tensors` for every pair that some choice of candidates needs.

    `prices` is called once, without boundaries between equal places. :data:`HOST` is the unit of
    the model's inputs and outputs, and the name of their memory.
    """
    tensors, by_id = tuple(tensors), {node.id: node for node in nodes}
    unpriced = [tuple(_unpriced(by_id, tensor)) for tensor in tensors]
    found = iter(prices([boundary for some in unpriced for boundary in some]))
    return tuple(
        _priced(tensor, some, list(islice(found, len(some))))
        for tensor, some in zip(tensors, unpriced, strict=True)
    )


def _unpriced(
    by_id: Mapping[SubgraphId, PricedSubgraph], tensor: Tensor
) -> Iterator[UnpricedBoundary]:
    sources = sorted(set(source_places(by_id, tensor)))
    wanted = sorted({place for use in tensor.uses for place in wanted_places(by_id, use)})
    for kind, end in KINDS.items():
        # Many places have one name: only one of each is compared with all others.
        ends = ({end(place): place for place in places} for places in (sources, wanted))
        for (_, source), (_, place) in product(*(sorted(one.items()) for one in ends)):
            if is_boundary(kind, source, place):
                yield UnpricedBoundary(kind=kind, tensor=tensor, source=source, destination=place)


def _priced(
    tensor: Tensor, boundaries: Sequence[UnpricedBoundary], prices: Sequence[float]
) -> Tensor:
    found: dict[str, dict[tuple[str, str], float]] = {kind: {} for kind in KINDS}
    for boundary, us in zip(boundaries, prices, strict=True):
        found[boundary.kind][boundary.names] = us
    return replace(
        tensor,
        transform_us=found["transform"],
        crossing_us=found["crossing"],
        copy_us=found["copy"],
    )
