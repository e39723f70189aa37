"""Tensors between sub-graphs, with the prices of their boundaries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from layoutsel.cost.place import Place
from tvm_passes.decision import SubgraphId

KINDS: Mapping[str, Callable[[Place], str]] = {
    "transform": lambda place: place.layout,
    "crossing": lambda place: place.placed_unit,
    "copy": lambda place: place.memory,
}
"""Kinds of boundaries, and the name of what differs between two places."""


@dataclass(frozen=True, kw_only=True)
class TensorUse:
    """Where a tensor goes."""

    consumer: SubgraphId | None
    """Consuming sub-graph; None for an output of the model."""
    input_index: int
    """Which activation of the consumer, or which output of the model."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor that leaves a sub-graph, or enters the model, with the prices of its boundaries."""

    producer: SubgraphId | None
    """Producing sub-graph; None for an input of the model."""
    output_index: int
    """Which output of the producer, or which input of the model."""
    uses: tuple[TensorUse, ...]
    shape: tuple[int, ...]
    dtype: str = "float32"
    bytes: int = 0
    transform_us: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Price of a layout change, by (source, destination); equal ones cost nothing."""
    crossing_us: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Price of handing it to another unit of one memory, by (source, destination); equal ones cost nothing."""
    copy_us: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Price of copying it to another memory, by (source, destination); equal ones cost nothing."""

    @property
    def name(self) -> str:
        """``head_Gemm.0`` (output 0 of head_Gemm) or ``input.1`` (input 1 of the model)."""
        return f"{self.producer or 'input'}.{self.output_index}"

    def price(self, kind: str, source: Place, wanted: Place) -> float:
        """Microseconds of a `kind` of boundary between two places; nothing where they do not differ in it."""
        if kind == "crossing" and source.device != wanted.device:
            return 0.0
        name = KINDS[kind]
        pair = name(source), name(wanted)
        if pair[0] == pair[1]:
            return 0.0
        prices: Mapping[tuple[str, str], float] = getattr(self, f"{kind}_us")
        return prices[pair]


def is_boundary(kind: str, source: Place, wanted: Place) -> bool:
    """True if there is a `kind` of boundary between two places; units of different devices only copy."""
    if kind == "crossing" and source.device != wanted.device:
        return False
    return KINDS[kind](source) != KINDS[kind](wanted)
