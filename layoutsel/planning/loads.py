"""Loads: time for which a plan occupies each resource, for problems of steady throughput.

A step of a plan computes a sub-graph or crosses a boundary. A
:class:`~layoutsel.planning.resources.ResourceModel` defines the resources that it occupies. The
load of a resource is the sum of its times over all steps. Loads are additive over the steps, so
that any weighted sum of loads is a problem for the solvers of :mod:`~layoutsel.planning.solve`.

A transform takes place in the memory of the tensor's producer, before copies, so that consumers in
several memories share it as :mod:`~layoutsel.planning.problem` counts it. If receivers transform,
layouts must have different names in different memories.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from layoutsel.cost.place import OUTSIDE, Place
from layoutsel.cost.tensor import KINDS, Tensor, is_boundary
from layoutsel.planning.problem import Option, PlanningProblem, source_places, wanted_places
from layoutsel.planning.resources import Resources, in_turn
from layoutsel.planning.tables import Label, Tables, TensorTable, labels_of, wants_of
from tvm_passes.decision import Decision, SubgraphId

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_NOTHING = 0
"""Number of the step that occupies nothing."""


def loads(
    problem: PlanningProblem, decisions: Mapping[SubgraphId, Decision]
) -> Mapping[str, float]:
    """Compute the load of each resource by a plan, microseconds.

    Raises
    ------
    IllegalDecision
        If a sub-graph has no decision, or one that is not a candidate.
    """
    chosen = {node.id: node.option(decisions[node.id]) for node in problem.nodes}
    found: dict[str, float] = {}
    for option in chosen.values():
        unit, memory = option.decision.unit, option.memory
        _add(found, problem.resources.compute(unit, memory, option.cost_us))
    for tensor in problem.tensors:
        source = OUTSIDE
        if tensor.producer is not None:
            source = chosen[tensor.producer].made[tensor.output_index]
        wanted = [
            OUTSIDE if use.consumer is None else chosen[use.consumer].wanted[use.input_index]
            for use in tensor.uses
        ]
        for kind, of in KINDS.items():
            for place in {of(place): place for place in wanted}.values():
                _add(found, boundary_resources(problem, tensor, kind, source, place))
    return found


def boundary_resources(
    problem: PlanningProblem, tensor: Tensor, kind: str, source: Place, wanted: Place
) -> Resources:
    """Return the resources of one kind of boundary between two places; none without a boundary."""
    if not is_boundary(kind, source, wanted):
        return Resources(busy_us={})
    us = tensor.price(kind, source, wanted)
    end = _end(problem, kind, source, wanted)
    return in_turn(problem.resources.boundary(kind, source.memory, end.memory, us))


def _end(problem: PlanningProblem, kind: str, source: Place, wanted: Place) -> Place:
    """Return the place where a boundary ends."""
    return wanted if kind == "copy" or problem.resources.receivers_transform else source


@dataclass(frozen=True, kw_only=True)
class Rooms:
    """Memory that sub-graphs occupy, and that there is."""

    held_bytes: Mapping[SubgraphId, float] = field(default_factory=dict)
    """Memory that a sub-graph occupies wherever it runs, bytes; absent ones occupy none."""
    room_bytes: Mapping[str, float] = field(default_factory=dict)
    """Size of each memory, bytes; absent ones have no limit."""


def room_in(memory: str) -> str:
    """Return the name of a memory's room among the resources."""
    return f"room in {memory}"


def _add(found: dict[str, float], resources: Resources) -> None:
    for name, us in resources.busy_us.items():
        found[name] = found.get(name, 0.0) + us


@dataclass(frozen=True, kw_only=True)
class _Charges:
    """Steps that a tensor may cause."""

    charge: np.ndarray
    """Number of the step of each label, (producer options, labels)."""
    always: np.ndarray
    """Numbers of the steps that outputs of the model cause, (producer options, labels)."""


class LoadTables:
    """Loads of all plans of a problem as numbers; tables for any prices of the resources.

    Distinct steps are numbered once. Prices of resources then give prices of steps by one sparse
    product, and tables of the weighted problem without another look at the problem.
    """

    def __init__(self, problem: PlanningProblem, rooms: Rooms | None = None) -> None:
        """Number all steps.

        Parameters
        ----------
        problem
            Candidates, boundaries and resources.
        rooms
            Limits of memories. Each limited memory is a resource then, see :func:`room_in`, and its
            load is in bytes.
        """
        self.problem = problem
        self._numbers: dict[tuple[object, ...], int] = {(): _NOTHING}
        self._busy: list[Mapping[str, float]] = [{}]
        self._rooms = rooms or Rooms()
        self._costs = [
            np.array([self._computing(node.id, option) for option in node.options])
            for node in problem.nodes
        ]
        index = {node.id: i for i, node in enumerate(problem.nodes)}
        self._tensors: list[tuple[TensorTable, _Charges]] = [
            self._table(tensor, index) for tensor in problem.tensors
        ]
        self.resources: tuple[str, ...] = tuple(sorted({r for busy in self._busy for r in busy}))
        """Resources that any step occupies, sorted."""

    @cached_property
    def busy_us(self) -> csr_array:
        """Time of each resource in each step, (steps, resources), microseconds."""
        from scipy.sparse import csr_array

        number = {name: i for i, name in enumerate(self.resources)}
        starts = np.cumsum([0, *map(len, self._busy)])
        columns = [number[name] for busy in self._busy for name in busy]
        values = [us for busy in self._busy for us in busy.values()]
        shape = (len(self._busy), len(self.resources))
        return csr_array((values, columns, starts), shape=shape)

    def weighted(self, prices: np.ndarray) -> Tables:
        """Make the tables of the problem whose cost is the sum of price times load.

        Parameters
        ----------
        prices
            Price of each of :attr:`resources`, (resources,).
        """
        us = self.busy_us @ prices
        costs = [us[steps] for steps in self._costs]
        constant = 0.0
        tensors = []
        for table, charges in self._tensors:
            if charges.always.size:
                always = us[charges.always].sum(axis=1)
                if table.producer >= 0:
                    costs[table.producer] = costs[table.producer] + always
                else:
                    constant += float(always[0])
            if table.consumers:
                tensors.append(_with_charge(table, us[charges.charge]))
        return Tables(costs=tuple(costs), constant=constant, tensors=tuple(tensors))

    def loads(self, choice: Sequence[int]) -> np.ndarray:
        """Compute the load of each resource if node i uses option ``choice[i]``, microseconds."""
        steps = np.fromiter(self._steps(choice), dtype=int)
        counts = np.bincount(steps, minlength=len(self._busy))
        return np.asarray(self.busy_us.T @ counts)

    def _steps(self, choice: Sequence[int]) -> Iterator[int]:
        yield from (int(c[o]) for c, o in zip(self._costs, choice, strict=True))
        for table, charges in self._tensors:
            row = choice[table.producer] if table.producer >= 0 else 0
            if charges.always.size:
                yield from charges.always[row].tolist()
            if table.consumers:
                wanted = np.zeros(len(table.group), dtype=bool)
                for consumer, want in table.merged.items():
                    wanted |= want[choice[consumer]]
                yield from charges.charge[row][wanted].tolist()

    def _computing(self, id_: SubgraphId, option: Option) -> int:
        unit, memory, us = option.decision.unit, option.memory, option.cost_us
        is_limited = memory in self._rooms.room_bytes
        held = self._rooms.held_bytes.get(id_, 0.0) if is_limited else 0.0
        key = unit, memory, us, held
        if key not in self._numbers:
            used = self.problem.resources.compute(unit, memory, us)
            room = {room_in(memory): held} if held else {}
            self._number(key, {**used.busy_us, **room})
        return self._numbers[key]

    def _crossing(self, tensor: Tensor, kind: str, source: Place, wanted: Place) -> int:
        if not is_boundary(kind, source, wanted):
            return _NOTHING
        us = tensor.price(kind, source, wanted)
        end = _end(self.problem, kind, source, wanted)
        key = kind, source.memory, end.memory, us
        if key not in self._numbers:
            used = boundary_resources(self.problem, tensor, kind, source, wanted)
            self._number(key, used.busy_us)
        return self._numbers[key]

    def _number(self, key: tuple[object, ...], busy_us: Mapping[str, float]) -> None:
        self._numbers[key] = len(self._busy)
        self._busy.append(busy_us)

    def _table(
        self, tensor: Tensor, index: Mapping[SubgraphId, int]
    ) -> tuple[TensorTable, _Charges]:
        """Number the steps of a tensor in the same way as :func:`~.tables.build_tables`."""
        sources = source_places(self.problem.by_id, tensor)
        uses = [use for use in tensor.uses if use.consumer is not None]
        places = [wanted_places(self.problem.by_id, use) for use in uses]
        is_output = len(uses) < len(tensor.uses)
        labels = labels_of([place for wanted in places for place in wanted] + [OUTSIDE] * is_output)
        charge = self._rows(tensor, sources, labels)
        always = np.zeros((len(sources), 0), dtype=int)
        if is_output:
            paid = wants_of(OUTSIDE, labels)
            always, charge = charge[:, paid], np.where(paid, _NOTHING, charge)
        numbers = {kind: number for number, kind in enumerate(KINDS)}
        table = TensorTable(
            producer=-1 if tensor.producer is None else index[tensor.producer],
            charge=np.zeros(charge.shape),
            group=np.array([numbers[kind] for kind, _, _ in labels]),
            consumers=tuple(index[use.consumer] for use in uses if use.consumer is not None),
            wants=tuple(np.array([wants_of(place, labels) for place in all_]) for all_ in places),
        )
        return table, _Charges(charge=charge, always=always)

    def _rows(
        self, tensor: Tensor, sources: Sequence[Place], labels: Iterable[Label]
    ) -> np.ndarray:
        rows = {
            source: [self._crossing(tensor, kind, source, place) for kind, _, place in labels]
            for source in dict.fromkeys(sources)
        }
        return np.array([rows[source] for source in sources], dtype=int)


def _with_charge(table: TensorTable, charge: np.ndarray) -> TensorTable:
    made = TensorTable(
        producer=table.producer,
        charge=charge,
        group=table.group,
        consumers=table.consumers,
        wants=table.wants,
    )
    # The wanted labels do not depend on prices.
    made.__dict__["merged"] = table.merged
    return made
