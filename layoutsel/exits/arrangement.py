"""Arrangements: where trunk and branches of a multi-exit network run, and their costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from layoutsel import documents


@dataclass(frozen=True, kw_only=True)
class WorkerKind:
    """A worker that trunk or branches may run on."""

    name: str
    """Name, such as ``cpu-2`` for two threads of the CPU."""
    unit: str
    """Compute unit."""
    threads: int
    """Number of threads."""
    cores: int
    """Number of the host's cores that it occupies while it works."""


@dataclass(frozen=True, kw_only=True)
class ExitCosts:
    """Predicted times of a network with E exits on every kind of worker."""

    workers: tuple[WorkerKind, ...]
    """Kinds of workers."""
    cores: int
    """Number of cores of the host: workers at the same time have at most as many."""
    trunk_us: Mapping[str, tuple[tuple[float, ...], ...]]
    """Times of the sub-graphs of each of the E trunk segments, by worker, microseconds."""
    branch_us: Mapping[str, tuple[tuple[float, ...], ...]]
    """Times of the sub-graphs of each of the E - 1 branches, by worker, microseconds."""
    needs: tuple[tuple[int, ...], ...]
    """Earlier branches of which each branch reads a tensor."""
    start_us: float = 0.0
    """Time to begin any stage on a worker that is ready, microseconds."""
    handover_us: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Time to pass each tap from one worker to another, by ``source>destination``, microseconds."""
    slowdown: Mapping[str, float] = field(default_factory=dict)
    """Factor on times while another worker computes, by ``worker|other``; 1 if absent."""
    request_us: float = field(default=0.0, metadata=documents.OPTIONAL)
    """Time of a request outside of its stages: for its inputs and its answer, microseconds."""
    call_us: float = field(default=0.0, metadata=documents.OPTIONAL)
    """Further time for its way to several workers and its answer's way back, microseconds.

    An arrangement on one worker runs on the caller's thread, without it.
    """
    waiting: Mapping[str, float] = field(default_factory=dict, metadata=documents.OPTIONAL)
    """Share of its time that a worker waits for its cores, below 1; 0 if absent.

    It is part of the times of the worker's stages. Most short requests meet no wait at all.
    """
    wait_us: float = field(default=0.0, metadata=documents.OPTIONAL)
    """Length of one such wait, microseconds."""


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """Workers of the trunk and of each branch.

    A branch on the trunk's own worker runs between two segments of the trunk. A branch on another
    worker runs in parallel with the trunk.
    """

    trunk: str
    """Worker of the trunk."""
    branches: tuple[str | None, ...]
    """Worker of each of the E - 1 branches; None for exits that are off."""

    @property
    def is_beside(self) -> bool:
        """True if any branch runs in parallel with the trunk."""
        return not {self.trunk, None}.issuperset(self.branches)
