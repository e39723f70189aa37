"""Arrangements: where trunk and branches of a multi-exit network run, and their costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from layoutsel import documents

T = TypeVar("T")
"""Cost of a pair of workers."""


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
    """Number of the host's cores that it occupies while it works; 0 for a device."""
    device: str = field(default="", metadata=documents.OPTIONAL)
    """Device that computes its stages, such as ``opencl/0``; empty for the host's cores."""
    in_flight: int = field(default=0, metadata=documents.OPTIONAL)
    """Largest number of sub-graphs in the device's queue; 0 for the host's cores."""


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
    copy_us: Mapping[str, tuple[float, ...]] = field(
        default_factory=dict, metadata=documents.OPTIONAL
    )
    """Time for which a device copies each tap before it goes on, by pairs as in `handover_us`."""
    slowdown: Mapping[str, float] = field(default_factory=dict)
    """Factor on times while another worker computes, by ``worker|other``; 1 if absent."""
    request_us: float = field(default=0.0, metadata=documents.OPTIONAL)
    """Time of a request outside of its stages: for its inputs and its answer, microseconds."""
    call_us: float = field(default=0.0, metadata=documents.OPTIONAL)
    """Further time for its way to several workers and its answer's way back, microseconds.

    An arrangement on one worker runs on the caller's thread, without it.
    """
    calls_us: Mapping[str, float] = field(default_factory=dict, metadata=documents.OPTIONAL)
    """The same time by ``trunk>branch`` where it differs from `call_us`, as with devices."""
    waiting: Mapping[str, float] = field(default_factory=dict, metadata=documents.OPTIONAL)
    """Share of its time that a worker waits for its cores, below 1; 0 if absent.

    It is part of the times of the worker's stages. Most short requests meet no wait at all.
    """
    wait_us: float = field(default=0.0, metadata=documents.OPTIONAL)
    """Length of one such wait, microseconds."""
    late: Mapping[str, float] = field(default_factory=dict, metadata=documents.OPTIONAL)
    """Share of requests that find a worker of branches without its core, below 1; 0 if absent.

    They run in sequence on the trunk's worker. The times of its branches contain no waits.
    """
    mean_over_median: float = field(default=1.0, metadata=documents.OPTIONAL)
    """Mean time of a request over its median, >= 1: the system interrupts some requests.

    All times are medians, or means without such interruptions.
    """


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

    @property
    def in_sequence(self) -> Arrangement:
        """The same exits, all on the trunk's worker."""
        branches = tuple(one if one is None else self.trunk for one in self.branches)
        return Arrangement(trunk=self.trunk, branches=branches)

    @property
    def workers(self) -> frozenset[str]:
        """Workers that run anything."""
        return frozenset(one for one in (self.trunk, *self.branches) if one is not None)


def devices_in(arrangement: Arrangement, workers: Iterable[WorkerKind]) -> tuple[str, ...]:
    """Return the devices that an arrangement uses, such as ``opencl/0``.

    Parameters
    ----------
    arrangement
        An arrangement.
    workers
        Workers that it may name.
    """
    return tuple(one.device for one in workers if one.device and one.name in arrangement.workers)


def host_costs(costs: ExitCosts) -> ExitCosts:
    """Copy costs without the workers on devices."""
    kinds = tuple(kind for kind in costs.workers if not kind.device)
    names = {kind.name for kind in kinds}

    def of_pairs(times: Mapping[str, T], separator: str) -> dict[str, T]:
        return {key: one for key, one in times.items() if names.issuperset(key.split(separator))}

    return replace(
        costs,
        workers=kinds,
        trunk_us={name: times for name, times in costs.trunk_us.items() if name in names},
        branch_us={name: times for name, times in costs.branch_us.items() if name in names},
        handover_us=of_pairs(costs.handover_us, ">"),
        copy_us=of_pairs(costs.copy_us, ">"),
        slowdown=of_pairs(costs.slowdown, "|"),
        calls_us=of_pairs(costs.calls_us, ">"),
        waiting={name: share for name, share in costs.waiting.items() if name in names},
        late={name: share for name, share in costs.late.items() if name in names},
    )
