"""A planning problem as numbers: what every solver works on.

A tensor wants *labels*: one label per distinct destination layout, unit and memory. Each use of it wants exactly one label
of each of these groups, and the tensor costs the charge of every label wanted by any use::

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
"""Label groups of a tensor: layouts, units, memories."""


@dataclass(frozen=True, kw_only=True)
class TensorTable:
    """One tensor: who makes it, who uses it, what each label costs."""

    producer: int
    """Index of the producing node; -1 for an input of the model, which has one pseudo option."""
    charge: np.ndarray
    """(producer options, labels) microseconds; labels of all groups side by side."""
    group: np.ndarray
    """(labels,) position of its kind among :data:`~layoutsel.cost.tensor.KINDS`."""
    consumers: tuple[int, ...]
    """Index of the consuming node of each use, one entry per use."""
    wants: tuple[np.ndarray, ...]
    """Per use, (consumer options, labels) booleans: one label per group is True."""

    @cached_property
    def merged(self) -> Mapping[int, np.ndarray]:
        """Per consuming node, the labels it wants by all its uses of the tensor together."""
        result: dict[int, np.ndarray] = {}
        for consumer, want in zip(self.consumers, self.wants, strict=True):
            result[consumer] = result[consumer] | want if consumer in result else want
        return result


@dataclass(frozen=True, kw_only=True)
class Tables:
    """The numbers of a problem. Uses by the model's outputs are folded into the node costs."""

    costs: tuple[np.ndarray, ...]
    """Per node, (options,) microseconds."""
    constant: float
    """Cost that no choice changes, microseconds."""
    tensors: tuple[TensorTable, ...]

    @cached_property
    def produced(self) -> tuple[tuple[int, ...], ...]:
        """Per node, the indices of the tensors it makes."""
        return _index(len(self.costs), [[t.producer] for t in self.tensors])

    @cached_property
    def consumed(self) -> tuple[tuple[int, ...], ...]:
        """Per node, the indices of the distinct tensors it uses."""
        return _index(len(self.costs), [list(t.merged) for t in self.tensors])

    def total(self, choice: Sequence[int]) -> float:
        """Cost of choosing option ``choice[i]`` for node i, microseconds."""
        cost = self.constant + sum(c[o] for c, o in zip(self.costs, choice, strict=True))
        return float(cost + sum(tensor_cost(tensor, choice) for tensor in self.tensors))


def tensor_cost(tensor: TensorTable, choice: Sequence[int]) -> float:
    """Boundary cost of one tensor under `choice`, microseconds."""
    wanted = np.zeros(len(tensor.group), dtype=bool)
    for consumer, want in tensor.merged.items():
        wanted |= want[choice[consumer]]
    row = choice[tensor.producer] if tensor.producer >= 0 else 0
    return float(tensor.charge[row] @ wanted)


def restrict_tables(tables: Tables, kept: Sequence[np.ndarray]) -> Tables:
    """Copy the tables with only the options ``kept[i]`` (increasing numbers) of every node i."""
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
    """Turn `problem` into numbers."""
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
    """Decisions of the options in `choice`."""
    return {
        node.id: node.options[option].decision
        for node, option in zip(problem.nodes, choice, strict=True)
    }


def to_choice(problem: PlanningProblem, decisions: Mapping[SubgraphId, Decision]) -> list[int]:
    """Inverse of :func:`to_decisions`."""
    return [node.options.index(node.option(decisions[node.id])) for node in problem.nodes]


def _tensor_table(
    problem: PlanningProblem, tensor: Tensor, index: Mapping[SubgraphId, int]
) -> tuple[TensorTable, np.ndarray]:
    """Make the table of `tensor`, and the charge (by producer option) that the model's outputs cause anyway."""
    sources = source_places(problem.by_id, tensor)
    uses = [use for use in tensor.uses if use.consumer is not None]
    places = [wanted_places(problem.by_id, use) for use in uses]
    is_output = len(uses) < len(tensor.uses)
    labels = _labels([place for wanted in places for place in wanted] + [OUTSIDE] * is_output)
    charge = np.array(
        [[tensor.price(kind, source, place) for kind, _, place in labels] for source in sources]
    ).reshape(len(sources), len(labels))
    always = np.zeros(len(sources))
    if is_output:
        paid = _wants(OUTSIDE, labels)
        always, charge = charge[:, paid].sum(axis=1), np.where(paid, 0.0, charge)
    numbers = {kind: number for number, kind in enumerate(KINDS)}
    table = TensorTable(
        producer=-1 if tensor.producer is None else index[tensor.producer],
        charge=charge,
        group=np.array([numbers[kind] for kind, _, _ in labels]),
        consumers=tuple(index[use.consumer] for use in uses if use.consumer is not None),
        wants=tuple(np.array([_wants(place, labels) for place in wanted]) for wanted in places),
    )
    return table, always


_Label = tuple[str, str, Place]
"""Kind of boundary, name of what it leads to, and a place of that name."""


def _labels(wanted: Sequence[Place]) -> list[_Label]:
    """Each kind of boundary with one place for everything distinct in it that is wanted, in order."""
    return [
        (kind, name, place)
        for kind, of in KINDS.items()
        for name, place in sorted({of(place): place for place in wanted}.items())
    ]


def _wants(place: Place, labels: Sequence[_Label]) -> np.ndarray:
    """(labels,) which of them `place` is like."""
    names = {kind: of(place) for kind, of in KINDS.items()}
    return np.array([names[kind] == name for kind, name, _ in labels])


def _index(count: int, members: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    lists: list[list[int]] = [[] for _ in range(count)]
    for position, nodes in enumerate(members):
        for node in nodes:
            if node >= 0:
                lists[node].append(position)
    return tuple(tuple(entries) for entries in lists)
