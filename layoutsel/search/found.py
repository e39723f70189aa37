"""Networks that a search has found: documents in its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from layoutsel import documents
from layoutsel.documents.saved import Fault, SavedDocument
from layoutsel.search.space import Architecture

SCHEMA_VERSION = 1
"""Version of files of found networks."""
NETWORK = "network.onnx"
"""File of a whole network."""
SHARED, TUNE, TEST = "shared", "tune", "test"
"""Accuracies: validation with common weights, validation after training, and the report's."""


@dataclass(frozen=True, kw_only=True)
class FoundMessage:
    """A tensor that one node sends to another."""

    tensor: str
    """Part that makes it, or ``input``."""
    source: str
    """Node that sends it."""
    destination: str
    """Node that receives it."""
    bytes: int
    """Size, bytes."""
    channels: int
    """Number of channels that are sent."""
    all_channels: int
    """Number of channels of the tensor before a selection."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Times of a deployed network."""

    engine: str
    """Engine of the nodes."""
    predicted_us: float
    """Predicted time of a request by the plans of the nodes, microseconds."""
    spread_us: float
    """Uncertainty of `predicted_us`, microseconds."""
    median_us: float
    """Median measured time of a request, microseconds."""
    measured_spread_us: float
    """Half the interquartile range of the measured times, microseconds."""
    requests: int
    """Number of timed requests."""
    error: float
    """Largest relative L2 error of an output against the whole network on one node."""
    staged_us: float = field(default=0.0, metadata=documents.OPTIONAL)
    """Predicted time with stages of this machine timed alone, microseconds; 0 if not known."""

    @property
    def relative_error(self) -> float:
        """Predicted time over measured time, minus 1."""
        return self.predicted_us / self.median_us - 1


@dataclass(frozen=True, kw_only=True)
class FoundNetwork(SavedDocument):
    """A network with a node for each of its parts."""

    VERSIONS = (SCHEMA_VERSION,)
    ADVICE = "Search again with 'layoutsel search'"

    schema_version: int = SCHEMA_VERSION
    """Version of the file format."""
    number: int
    """Number in the front, from 0."""
    architecture: Architecture
    """Channels and operations."""
    placement: Mapping[str, str]
    """Node by part."""
    sent: tuple[FoundMessage, ...]
    """Tensors that an answer sends between nodes."""
    predicted_us: float
    """Predicted time of the work that was searched for: the sum of all prices, microseconds."""
    spread_us: float
    """Uncertainty of `predicted_us`, microseconds."""
    accuracies: Mapping[str, float]
    """Shares of right answers: :data:`SHARED`, :data:`TUNE` and :data:`TEST`."""
    parts: Mapping[str, str] = field(default_factory=dict, metadata=documents.OPTIONAL)
    """ONNX files of single nodes' parts, by node; empty if only the whole network was written."""
    precision: str = field(default="float32", metadata=documents.OPTIONAL)
    """Precision of sent tensors."""
    link: str = field(default="", metadata=documents.OPTIONAL)
    """Link of the origin that they are sent over; empty if there is one alone."""
    measured: tuple[Measurement, ...] = field(default=(), metadata=documents.OPTIONAL)
    """Measurements, the latest one last."""

    @property
    def sent_bytes(self) -> int:
        """Bytes that a request sends between nodes."""
        return sum(one.bytes for one in self.sent)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Nodes in order of their first part."""
        return tuple(dict.fromkeys(self.placement.values()))

    def faults(self) -> Iterator[Fault]:
        """Yield values that are out of range."""
        for name, share in self.accuracies.items():
            if not 0 <= share <= 1:
                yield f"$.accuracies.{name}", f"{share:g}", "a share from 0 to 1"
        if not self.placement:
            yield "$.placement", "none", "a node for each part"
        if self.predicted_us < 0:
            yield "$.predicted_us", f"{self.predicted_us:g}", "0 or more"
