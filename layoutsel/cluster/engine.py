"""Engines: run segments on nodes and move tensors between them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from layoutsel.cluster.statistics import NodeState
from tvm_passes.errors import LayoutselError

Tensors = Mapping[str, np.ndarray]
"""Arrays by the names of their tensors: ``input.0``, ``head.0``, ``output.0``."""


class NodeLost(LayoutselError):
    """A node that cannot run a segment or deliver a tensor.

    Parameters
    ----------
    node
        Name of the node.
    why
        Reason, as the engine reports it.
    """

    def __init__(self, node: str, why: str) -> None:
        super().__init__(f"node {node!r} is lost: {why}")
        self.node = node
        self.why = why


class NodeRefused(LayoutselError):
    """A node that may not join: another version, a missing instruction set, another artifact."""


@dataclass(frozen=True, kw_only=True)
class Announced:
    """An artifact that nodes are allowed to load."""

    path: Path
    """File on the origin node."""
    sha256: str
    """Digest of the file, hexadecimal."""

    @classmethod
    def of(cls, path: Path) -> Announced:
        """Announce a file."""
        return cls(path=path, sha256=digest(path))

    def check(self, node: str) -> None:
        """Compare the file with its digest; raises :class:`NodeRefused` if it has changed."""
        if (found := digest(self.path)) != self.sha256:
            raise NodeRefused(
                f"node {node!r}: {self.path} has the SHA-256 {found}; expected {self.sha256}: "
                f"announce the file again"
            )


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal; raises :class:`OSError` if it cannot be read."""
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            found.update(block)
    return found.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Work:
    """A run of a segment on a node."""

    segment: str
    """Id of the segment, for messages."""
    node: str
    """Node that runs it."""
    atoms: tuple[str, ...]
    """Stages of the artifact, in order."""
    outputs: tuple[str, ...]
    """Names of the tensors to return."""


@dataclass(frozen=True, kw_only=True)
class RunTimes:
    """Durations that a node reports of a run, microseconds."""

    queue_us: float
    """Wait for earlier runs and for threads, with all inputs at hand."""
    unpack_us: float
    """Conversion of the inputs."""
    compute_us: float
    """Run of the atoms."""
    pack_us: float
    """Conversion of the outputs."""

    @property
    def total_us(self) -> float:
        """Sum of all durations."""
        return self.queue_us + self.unpack_us + self.compute_us + self.pack_us


@dataclass(frozen=True, kw_only=True)
class NodeTensor:
    """A tensor on a node; only its engine opens it."""

    node: str
    """Node that made it."""
    handle: Any
    """Object of the engine."""


@dataclass(frozen=True, kw_only=True)
class SegmentRun:
    """A started run of a segment."""

    outputs: Mapping[str, NodeTensor]
    """Outputs by name; usable once `times` has a result."""
    times: Future[RunTimes] = field(default_factory=Future)
    """Times of the run, or its error: :class:`NodeLost` if the node or an input is lost."""


class ClusterEngine(Protocol):
    """Runs segments on nodes. All methods are safe from any thread.

    Only :meth:`nodes` and :meth:`load` wait.
    """

    def nodes(self) -> Mapping[str, NodeState]:
        """States of the nodes that have joined and answer."""
        ...

    def load(self, node: str, artifact: Announced, limit_s: float) -> None:
        """Open an artifact on a node, which checks its digest; no work if it is open already.

        Raises
        ------
        NodeRefused
            If the node's versions, instruction sets or file do not fit.
        NodeLost
            If the node does not answer within `limit_s`.
        """
        ...

    def put(self, tensors: Tensors) -> Mapping[str, NodeTensor]:
        """Hand inputs of the model to the engine, on the origin node."""
        ...

    def start(self, work: Work, inputs: Mapping[str, NodeTensor]) -> SegmentRun:
        """Start a segment on tensors of any nodes and return at once."""
        ...

    def fetch(self, refs: Mapping[str, NodeTensor]) -> Future[Tensors]:
        """Bring tensors to the origin node; the future fails with :class:`NodeLost`."""
        ...

    def close(self) -> None:
        """Stop all segments; nodes and their processes that others started stay."""
        ...
