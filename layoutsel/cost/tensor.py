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
"""Kinds of boundaries, each with the property of a place that it changes."""


@dataclass(frozen=True, kw_only=True)
class TensorUse:
    """One use of a tensor: a consumer and its input."""

    consumer: SubgraphId | None
    """Consuming sub-graph; None for an output of the model."""
    input_index: int
    """Index among the activations of the consumer, or among the outputs of the model."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor of the model with all its uses and the prices of its boundaries.

    A sub-graph produces it, or it is an input of the model.
    """

    producer: SubgraphId | None
    """Producing sub-graph; None for an input of the model."""
    output_index: int
    """Index among the outputs of the producer, or among the inputs of the model."""
    uses: tuple[TensorUse, ...]
    """All uses of the tensor."""
    shape: tuple[int, ...]
    """Logical shape."""
    dtype: str = "float32"
    """Element type."""
    bytes: int = 0
    """Size in bytes."""
    transform_us: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Price of a layout transform by (source, destination), microseconds."""
    crossing_us: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Price of a hand-over between units of one memory by (source, destination), microseconds."""
    copy_us: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Price of a copy between two memories by (source, destination), microseconds."""

    @property
    def name(self) -> str:
        """Name: ``head_Gemm.0`` is output 0 of head_Gemm, ``input.1`` is input 1 of the model."""
        return f"{self.producer or 'input'}.{self.output_index}"

    def price(self, kind: str, source: Place, wanted: Place) -> float:
        """Return the price of a boundary between two places, microseconds; 0 without a boundary."""
        if kind == "crossing" and source.device != wanted.device:
            return 0.0
        name = KINDS[kind]
        pair = name(source), name(wanted)
        if pair[0] == pair[1]:
            return 0.0
        prices: Mapping[tuple[str, str], float] = getattr(self, f"{kind}_us")
        return prices[pair]


def is_boundary(kind: str, source: Place, wanted: Place) -> bool:
    """True if a `kind` of boundary lies between two places; between devices, only copies do."""
    if kind == "crossing" and source.device != wanted.device:
        return False
    return KINDS[kind](source) != KINDS[kind](wanted)
