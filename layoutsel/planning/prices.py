"""The prices that a planning problem needs, asked of whoever knows them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from layoutsel.planning.problem import (
    KINDS,
    Node,
    ProblemError,
    Tensor,
    is_boundary,
    source_places,
    wanted_places,
)

PriceBoundary = Callable[[Tensor, str, str], float]
"""(tensor, source, destination) → microseconds."""


def _no_copy(tensor: Tensor, source: str, destination: str) -> float:
    raise ProblemError(f"nobody prices the copy of {tensor.name} from {source} to {destination}")


def price_tensors(
    tensors: Iterable[Tensor],
    nodes: Iterable[Node],
    transform_us: PriceBoundary,
    crossing_us: PriceBoundary,
    copy_us: PriceBoundary = _no_copy,
) -> tuple[Tensor, ...]:
    """Fill in the boundary prices of `tensors` for every pair that some choice of candidates needs.

    `transform_us` is asked about layouts, `crossing_us` about units of one memory, `copy_us` about memories; none about
    equal ones. The unit of the model's inputs and outputs, and their memory, is :data:`HOST`.
    """
    by_id = {node.id: node for node in nodes}
    ask = {"transform": transform_us, "crossing": crossing_us, "copy": copy_us}
    priced = []
    for tensor in tensors:
        sources = set(source_places(by_id, tensor))
        wanted = {place for use in tensor.uses for place in wanted_places(by_id, use)}
        prices = {
            kind: {
                pair: us(tensor, *pair)
                for pair in sorted(
                    {
                        (KINDS[kind](source), KINDS[kind](place))
                        for source in sources
                        for place in wanted
                        if is_boundary(kind, source, place)
                    }
                )
            }
            for kind, us in ask.items()
        }
        priced.append(
            replace(
                tensor,
                transform_us=prices["transform"],
                crossing_us=prices["crossing"],
                copy_us=prices["copy"],
            )
        )
    return tuple(priced)
