"""A planning problem as numbers, the input of all solvers.

Consumers of a tensor want *labels*: one label per distinct destination layout, unit and memory.
Each use wants exactly one label of each of these groups. The tensor costs the charge of every label
that any use wants::

    cost(tensor) = sum over labels l of charge[producer option, l] * (any use wants l)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from layoutsel.cost.place import OUTSIDE, Place
from layoutsel.cost.tensor import KINDS, Tensor
from layoutsel.planning.problem import PlanningProblem, source_places, wanted_places
from tvm_passes.decision import Decision, SubgraphId

GROUPS = len(KINDS)
"""Number of label groups of a tensor: layouts, units, memories."""


@dataclass(frozen=True, kw_only=True)
class TensorTable:
    """A tensor with its producer, its consumers and the price of each label."""

    producer: int
    """Index of the producing node; -1 for an input of the model, which has one pseudo option."""
    charge: np.ndarray
    """Prices, (producer options, labels), microseconds; labels of all groups together."""
    group: np.ndarray
    """Index of each label's kind in :data:`~layoutsel.cost.tensor.KINDS`, (labels,)."""
    consumers: tuple[int, ...]
    """Index of the consuming node of each use."""
    wants: tuple[np.ndarray, ...]
    """Wanted labels per use, (consumer options, labels) booleans; one per group is True."""

    @cached_property
    def merged(self) -> Mapping[int, np.ndarray]:
        """Labels that each consuming node wants for all its uses of the tensor together."""
        result: dict[int, np.ndarray] = {}
        for consumer, want in zip(self.consumers, self.wants, strict=True):
            result[consumer] = result[consumer] | want if consumer in result else want
        return result


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Numbers of a problem; uses by the model's outputs are part of the node costs."""

    costs: tuple[np.ndarray, ...]
    """Costs of the options per node, (options,), microseconds."""
    constant: float
    """Cost that is part of every plan, microseconds."""
    tensors: tuple[TensorTable, ...]
    """Tensors with their prices."""

    @cached_property
    def produced(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the tensors that each node produces."""
        return _index(len(self.costs), [[t.producer] for t in self.tensors])

    @cached_property
    def consumed(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the distinct tensors that each node reads."""
        return _index(len(self.costs), [list(t.merged) for t in self.tensors])

    def total(self, choice: Sequence[int]) -> float:
        """Compute the cost of choosing option ``choice[i]`` for node i, microseconds."""
        cost = self.constant + sum(c[o] for c, o in zip(self.costs, choice, strict=True))
        return float(cost + sum(tensor_cost(tensor, choice) for tensor in self.tensors))


def tensor_cost(tensor: TensorTable, choice: Sequence[int]) -> float:
    """Compute the boundary cost of one tensor under `choice`, microseconds."""
    wanted = np.zeros(len(tensor.group), dtype=bool)
    for consumer, want in tensor.merged.items():
        wanted |= want[choice[consumer]]
    row = choice[tensor.producer] if tensor.producer >= 0 else 0
    return float(tensor.charge[row] @ wanted)


def restrict_tables(tables: Tables, kept: Sequence[np.ndarray]) -> Tables:
    """Copy the tables with only the options ``kept[i]`` (increasing indices) of every node i."""
    tensors = tuple(
        replace(
            tensor,
            charge=tensor.charge if tensor.producer < 0 else tensor.charge[kept[tensor.producer]],
            wants=tuple(
                want[kept[consumer]]
                for consumer, want in zip(tensor.consumers, tensor.wants, strict=True)
            ),
        )
        for tensor in tables.tensors
    )
    costs = tuple(cost[keep] for cost, keep in zip(tables.costs, kept, strict=True))
    return Tables(costs=costs, constant=tables.constant, tensors=tensors)


def build_tables(problem: PlanningProblem) -> Tables:
    """Convert `problem` to numbers."""
    index = {node.id: i for i, node in enumerate(problem.nodes)}
    costs = [np.array([option.cost_us for option in node.options]) for node in problem.nodes]
    constant = 0.0
    tensors = []
    for tensor in problem.tensors:
        table, always = _tensor_table(problem, tensor, index)
        if table.producer >= 0:
            costs[table.producer] = costs[table.producer] + always
        else:
            constant += float(always[0])
        if table.consumers:
            tensors.append(table)
    return Tables(costs=tuple(costs), constant=constant, tensors=tuple(tensors))


def to_decisions(problem: PlanningProblem, choice: Sequence[int]) -> dict[SubgraphId, Decision]:
    """Convert the options in `choice` to decisions."""
    return {
        node.id: node.options[option].decision
        for node, option in zip(problem.nodes, choice, strict=True)
    }


def to_choice(problem: PlanningProblem, decisions: Mapping[SubgraphId, Decision]) -> list[int]:
    """Convert decisions to options; the inverse of :func:`to_decisions`."""
    return [node.options.index(node.option(decisions[node.id])) for node in problem.nodes]


def _tensor_table(
    problem: PlanningProblem, tensor: Tensor, index: Mapping[SubgraphId, int]
) -> tuple[TensorTable, np.ndarray]:
    """Make the table of `tensor`, and the price that the model's outputs cause in any plan.

    The price is (producer options,), microseconds.
    """
    sources = source_places(problem.by_id, tensor)
    uses = [use for use in tensor.uses if use.consumer is not None]
    places = [wanted_places(problem.by_id, use) for use in uses]
    is_output = len(uses) < len(tensor.uses)
    labels = labels_of([place for wanted in places for place in wanted] + [OUTSIDE] * is_output)
    # Options with other algorithms have equal places.
    rows = {
        source: [tensor.price(kind, source, place) for kind, _, place in labels]
        for source in dict.fromkeys(sources)
    }
    charge = np.array([rows[source] for source in sources]).reshape(len(sources), len(labels))
    always = np.zeros(len(sources))
    if is_output:
        paid = wants_of(OUTSIDE, labels)
        always, charge = charge[:, paid].sum(axis=1), np.where(paid, 0.0, charge)
    numbers = {kind: number for number, kind in enumerate(KINDS)}
    table = TensorTable(
        producer=-1 if tensor.producer is None else index[tensor.producer],
        charge=charge,
        group=np.array([numbers[kind] for kind, _, _ in labels]),
        consumers=tuple(index[use.consumer] for use in uses if use.consumer is not None),
        wants=tuple(np.array([wants_of(place, labels) for place in wanted]) for wanted in places),
    )
    return table, always


Label = tuple[str, str, Place]
"""Kind of boundary, name of its destination, and a place of that name."""


def labels_of(wanted: Sequence[Place]) -> list[Label]:
    """List the labels: each distinct destination of each kind of boundary, in order."""
    return [
        (kind, name, place)
        for kind, of in KINDS.items()
        for name, place in sorted({of(place): place for place in wanted}.items())
    ]


def wants_of(place: Place, labels: Sequence[Label]) -> np.ndarray:
    """Return which labels `place` matches, (labels,) booleans."""
    names = {kind: of(place) for kind, of in KINDS.items()}
    return np.array([names[kind] == name for kind, name, _ in labels])


def _index(count: int, members: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    lists: list[list[int]] = [[] for _ in range(count)]
    for position, nodes in enumerate(members):
        for node in nodes:
            if node >= 0:
                lists[node].append(position)
    return tuple(tuple(entries) for entries in lists)
