"""Division of a network into parts for the machines of a pipeline, as numbers.

Each machine belongs to a class of equal ones and takes one part, so that a request visits every
machine once. The load of a machine is the time of its sub-graphs, plus the time of each tensor that
it receives or sends, once per tensor. The period of a pipeline is the greatest load. This is the
cost definition of Tarnawski et al., "Efficient algorithms for device placement of DNN graph
operators" (NeurIPS 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np


@dataclass(frozen=True, kw_only=True)
class SentTensor:
    """A tensor with the time that it takes at a machine of each class."""

    producer: int
    """Sub-graph that produces it."""
    consumers: tuple[int, ...]
    """Distinct sub-graphs that read it."""
    send_us: np.ndarray
    """Time at the sender, (classes,), microseconds."""
    receive_us: np.ndarray
    """Time at each receiver, (classes,), microseconds."""


@dataclass(frozen=True, kw_only=True)
class DivisionProblem:
    """Sub-graphs in topological order, tensors, and the machines that share them."""

    compute_us: np.ndarray
    """Time of each sub-graph on a machine of each class, (sub-graphs, classes), microseconds."""
    tensors: tuple[SentTensor, ...]
    """Tensors between the sub-graphs."""
    counts: tuple[int, ...]
    """Number of machines of each class."""
    bytes: np.ndarray
    """Memory that each sub-graph occupies, (sub-graphs,)."""
    limits: tuple[float, ...]
    """Memory of a machine of each class, bytes."""

    @property
    def size(self) -> int:
        """Number of sub-graphs."""
        return len(self.compute_us)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.counts)

    @cached_property
    def machines(self) -> tuple[int, ...]:
        """Class of each machine."""
        return tuple(c for c, count in enumerate(self.counts) for _ in range(count))

    @cached_property
    def produced(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the tensors that each sub-graph produces."""
        found: list[list[int]] = [[] for _ in range(self.size)]
        for t, tensor in enumerate(self.tensors):
            found[tensor.producer].append(t)
        return tuple(map(tuple, found))

    @cached_property
    def consumed(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the tensors that each sub-graph reads."""
        found: list[list[int]] = [[] for _ in range(self.size)]
        for t, tensor in enumerate(self.tensors):
            for consumer in tensor.consumers:
                found[consumer].append(t)
        return tuple(map(tuple, found))

    @cached_property
    def successors(self) -> tuple[frozenset[int], ...]:
        """Consumers of each sub-graph's tensors."""
        found: list[set[int]] = [set() for _ in range(self.size)]
        for tensor in self.tensors:
            found[tensor.producer].update(tensor.consumers)
        return tuple(map(frozenset, found))

    @cached_property
    def predecessors(self) -> tuple[frozenset[int], ...]:
        """Producers of each sub-graph's inputs."""
        found: list[set[int]] = [set() for _ in range(self.size)]
        for tensor in self.tensors:
            for consumer in tensor.consumers:
                found[consumer].add(tensor.producer)
        return tuple(map(frozenset, found))


@dataclass(frozen=True, kw_only=True)
class Division:
    """Parts of a network, one for each machine or team of equal machines."""

    part_of: tuple[int, ...]
    """Part of each sub-graph."""
    classes: tuple[int, ...]
    """Class of the machines of each part."""
    teams: tuple[int, ...] = field(default=())
    """Number of machines that share each part's requests; empty for one each."""

    def team(self, part: int) -> int:
        """Number of machines that share a part's requests."""
        return self.teams[part] if self.teams else 1


def loads_of(problem: DivisionProblem, division: Division) -> np.ndarray:
    """Compute the load of a machine of each part, (parts,), microseconds."""
    parts, classes = division.part_of, division.classes
    found = np.zeros(len(classes))
    for node, part in enumerate(parts):
        found[part] += problem.compute_us[node, classes[part]]
    for tensor in problem.tensors:
        home = parts[tensor.producer]
        away = {parts[consumer] for consumer in tensor.consumers} - {home}
        if away:
            found[home] += tensor.send_us[classes[home]]
        for part in away:
            found[part] += tensor.receive_us[classes[part]]
    return found / [division.team(part) for part in range(len(classes))]


def period_us(problem: DivisionProblem, division: Division) -> float:
    """Compute the time between two results, microseconds; infinite if memory does not suffice."""
    held = np.zeros(len(division.classes))
    np.add.at(held, list(division.part_of), problem.bytes)
    limits = np.array([problem.limits[c] for c in division.classes])
    if (held > limits * (1 + 1e-12)).any():
        return float(np.inf)
    return float(loads_of(problem, division).max())


def is_contiguous(problem: DivisionProblem, part_of: Sequence[int]) -> bool:
    """True if the parts can be ordered so that all tensors go to later parts."""
    from graphlib import CycleError, TopologicalSorter

    before: dict[int, set[int]] = {part: set() for part in part_of}
    for tensor in problem.tensors:
        for consumer in tensor.consumers:
            if part_of[consumer] != part_of[tensor.producer]:
                before[part_of[consumer]].add(part_of[tensor.producer])
    try:
        TopologicalSorter(before).prepare()
    except CycleError:
        return False
    return True


def merged(problem: DivisionProblem, group_of: Sequence[int]) -> DivisionProblem:
    """Merge groups of sub-graphs, numbered from 0 in a topological order of the groups."""
    count = max(group_of) + 1
    compute = np.zeros((count, problem.classes))
    held = np.zeros(count)
    np.add.at(compute, list(group_of), problem.compute_us)
    np.add.at(held, list(group_of), problem.bytes)
    tensors = []
    for tensor in problem.tensors:
        home = group_of[tensor.producer]
        readers = tuple(sorted({group_of[c] for c in tensor.consumers} - {home}))
        if readers:
            tensors.append(
                SentTensor(
                    producer=home,
                    consumers=readers,
                    send_us=tensor.send_us,
                    receive_us=tensor.receive_us,
                )
            )
    return DivisionProblem(
        compute_us=compute,
        tensors=tuple(tensors),
        counts=problem.counts,
        bytes=held,
        limits=problem.limits,
    )
