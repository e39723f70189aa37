"""The planning problem: sub-graphs with their candidates, tensors with their boundary costs.

Nothing here knows TVM: ids, names and microseconds only.

The boundary cost belongs to a *tensor*, not to an edge: a tensor that several consumers want in the same layout is
transformed once, handed to a unit once, and copied to a memory once. With ``s`` the producer's option, a tensor costs::

    sum of transform_us[s.layout, l] for every distinct layout l that some consumer wants
  + sum of crossing_us[s.unit, u]    for every distinct unit u of s's device that some consumer runs on
  + sum of copy_us[s.memory, m]      for every distinct memory m that some consumer's device computes in
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from math import isfinite

import numpy as np

from layoutsel.cost.place import HOST, OUTSIDE, Place, memory_name
from layoutsel.cost.tensor import KINDS, Tensor, TensorUse, is_boundary
from layoutsel.planning.resources import HostDriven, ResourceModel
from layoutsel.planning.values import SUM
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.devices import DeviceId
from tvm_passes.errors import Decline, IllegalDecision, LayoutselError

ONE_HOST = HostDriven(HOST)
"""One host that calls devices, each with a memory of its own."""


class ProblemError(LayoutselError):
    """A planning problem that is inconsistent or has no legal plan."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """A candidate of a sub-graph: a legal decision, priced."""

    decision: Decision
    cost_us: float
    """Time of the sub-graph under this decision, microseconds, boundaries excluded."""
    in_layouts: tuple[str, ...]
    """Layout in which each activation input is wanted."""
    out_layouts: tuple[str, ...]
    """Layout in which each output is produced."""
    score_us: float | None = None
    """Complexity score (microseconds) of the sub-graph on this unit; None: `cost_us` stands in."""
    spread_us: float = 0.0
    """Uncertainty of `cost_us`, microseconds."""
    source: str = "given"
    """Where `cost_us` comes from: ``measured``, ``roofline``, ..."""
    memory: str = field(init=False)
    """Name of the memory that the decision's device computes in."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "memory", memory_name(self.decision.device))

    @property
    def wanted(self) -> tuple[Place, ...]:
        """Where each activation input is wanted."""
        return self._places(self.in_layouts)

    @property
    def made(self) -> tuple[Place, ...]:
        """Where each output lies."""
        return self._places(self.out_layouts)

    def _places(self, layouts: tuple[str, ...]) -> tuple[Place, ...]:
        unit, device = self.decision.unit, self.decision.device
        return tuple(Place(layout, unit, device) for layout in layouts)


@dataclass(frozen=True, kw_only=True)
class PricedSubgraph:
    """A sub-graph as the planner sees it."""

    id: SubgraphId
    options: tuple[Option, ...]
    operators: tuple[str, ...] = ()
    """Operator names in it, such as ``nn.conv2d``."""
    names: tuple[str, ...] = ()
    """Names of its operators in the source model, such as ONNX node names."""
    declines: tuple[Decline, ...] = ()
    """Decisions that are not possible, with reasons."""

    def option(self, decision: Decision) -> Option:
        """Find the candidate with `decision`.

        Raises
        ------
        IllegalDecision
            If `decision` is none of its candidates; says why where a decline is known.
        """
        for option in self.options:
            if option.decision == decision:
                return option
        why = [str(decline) for decline in self.declines if decline.decision == str(decision)]
        legal = ", ".join(str(option.decision) for option in self.options)
        raise IllegalDecision(
            f"sub-graph {self.id} ({', '.join(self.operators)}) has no candidate {decision}"
            f"{': ' + why[0] if why else ''}. Its candidates: {legal}"
        )


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """One transform, crossing or copy that a plan pays for."""

    kind: str
    """One of :data:`KINDS`."""
    tensor: str
    """:attr:`Tensor.name`."""
    source: str
    destination: str
    """Layouts of a transform, units of a crossing, memories of a copy."""
    cost_us: float
    consumers: tuple[str, ...]
    """Who wants it; ``output`` is the model's output."""


@dataclass(frozen=True, kw_only=True)
class PlanCost:
    """What a choice of decisions costs, by part."""

    subgraphs: Mapping[SubgraphId, float]
    """Microseconds per sub-graph."""
    boundaries: tuple[Boundary, ...]

    @property
    def total_us(self) -> float:
        """Sum of all parts, microseconds."""
        return sum(self.subgraphs.values()) + sum(b.cost_us for b in self.boundaries)


@dataclass(frozen=True, kw_only=True)
class PlanningProblem:
    """Every sub-graph's candidates and every tensor's boundary prices; nodes in topological order."""

    nodes: tuple[PricedSubgraph, ...]
    tensors: tuple[Tensor, ...]
    model_name: str = ""
    model_hash: str = ""
    objective: str = SUM
    """Objective that plans are chosen by: an entry of :func:`layoutsel.planning.objectives.objectives`."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """Largest value that a plan may have of other quantities, by name, such as ``rel_error``."""
    resources: ResourceModel = ONE_HOST
    """Resources that each step occupies; read by objectives for which steps run at the same time."""
    stands_for: Mapping[str, int] = field(default_factory=dict)
    """Maximum number of devices that the device of a memory stands for, by memory; 1 for others.

    Devices that are alike and of no use to plans have no candidates. Lower bounds hold for plans
    that use them all the same.
    """

    def __post_init__(self) -> None:
        _check_nodes(self)
        for tensor in self.tensors:
            _check_tensor(self, tensor)

    @cached_property
    def by_id(self) -> Mapping[SubgraphId, PricedSubgraph]:
        """Nodes by sub-graph id."""
        return {node.id: node for node in self.nodes}

    @property
    def units(self) -> tuple[str, ...]:
        """Units that some candidate names, sorted."""
        return tuple(sorted({o.decision.unit for node in self.nodes for o in node.options}))

    @property
    def layouts(self) -> tuple[str, ...]:
        """Layouts that some candidate names, sorted."""
        return tuple(sorted({o.decision.layout for node in self.nodes for o in node.options}))

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions that some candidate names, sorted."""
        return tuple(sorted({o.decision.precision for node in self.nodes for o in node.options}))

    def cost(self, decisions: Mapping[SubgraphId, Decision]) -> PlanCost:
        """Predicted cost of `decisions`, by part.

        Raises
        ------
        IllegalDecision
            If a sub-graph has no decision, or one that is none of its candidates.
        """
        chosen = {node.id: node.option(_decision_of(decisions, node.id)) for node in self.nodes}
        boundaries = [b for tensor in self.tensors for b in boundaries_of(tensor, chosen)]
        costs = {id_: option.cost_us for id_, option in chosen.items()}
        return PlanCost(subgraphs=costs, boundaries=tuple(boundaries))

    def offers(self, decisions: Mapping[SubgraphId, Decision]) -> bool:
        """True if every sub-graph has the candidate that `decisions` give it."""
        return all(
            any(option.decision == decisions.get(node.id) for option in node.options)
            for node in self.nodes
        )

    def restrict(self, keep: Callable[[PricedSubgraph, Option], bool]) -> PlanningProblem:
        """Copy the problem with only the candidates for which `keep` holds.

        Raises
        ------
        ProblemError
            If a sub-graph is left without a candidate.
        """
        nodes = tuple(
            replace(node, options=tuple(o for o in node.options if keep(node, o)))
            for node in self.nodes
        )
        for node in nodes:
            _check_options(node)
        narrowed = copy(self)
        # Fewer candidates need no prices that all of them do not have: another check takes long.
        vars(narrowed).pop("by_id", None)
        object.__setattr__(narrowed, "nodes", nodes)
        return narrowed


def source_places(by_id: Mapping[SubgraphId, PricedSubgraph], tensor: Tensor) -> list[Place]:
    """List where `tensor` lies under each option of its producer; one place for a model's input."""
    if tensor.producer is None:
        return [OUTSIDE]
    return [option.made[tensor.output_index] for option in by_id[tensor.producer].options]


def wanted_places(by_id: Mapping[SubgraphId, PricedSubgraph], use: TensorUse) -> list[Place]:
    """List where each option of the consumer wants its input; one place for a model's output."""
    if use.consumer is None:
        return [OUTSIDE]
    return [option.wanted[use.input_index] for option in by_id[use.consumer].options]


def _decision_of(decisions: Mapping[SubgraphId, Decision], id_: SubgraphId) -> Decision:
    if id_ not in decisions:
        raise IllegalDecision(f"sub-graph {id_} has no decision; a plan needs one for every one")
    return decisions[id_]


def boundaries_of(tensor: Tensor, chosen: Mapping[SubgraphId, Option]) -> Iterable[Boundary]:
    """What `tensor` pays for where sub-graphs take the options `chosen`."""
    source = (
        OUTSIDE if tensor.producer is None else chosen[tensor.producer].made[tensor.output_index]
    )
    places = [
        OUTSIDE if use.consumer is None else chosen[use.consumer].wanted[use.input_index]
        for use in tensor.uses
    ]
    for kind, of in KINDS.items():
        wanted: dict[str, tuple[Place, list[str]]] = {}
        for use, place in zip(tensor.uses, places, strict=True):
            if is_boundary(kind, source, place):
                wanted.setdefault(of(place), (place, []))[1].append(use.consumer or "output")
        for destination, (place, consumers) in wanted.items():
            yield Boundary(
                kind=kind,
                tensor=tensor.name,
                source=of(source),
                destination=destination,
                cost_us=tensor.price(kind, source, place),
                consumers=tuple(dict.fromkeys(consumers)),
            )


def _check_nodes(problem: PlanningProblem) -> None:
    if len(problem.by_id) != len(problem.nodes):
        raise ProblemError("two sub-graphs of the planning problem have the same id")
    for node in problem.nodes:
        _check_options(node)
        if len({option.decision for option in node.options}) != len(node.options):
            raise ProblemError(f"sub-graph {node.id} has two candidates with the same decision")
        for option in node.options:
            if not (np.isfinite(option.cost_us) and option.cost_us >= 0):
                raise ProblemError(
                    f"sub-graph {node.id}: candidate {option.decision} costs {option.cost_us} us; "
                    f"expected a finite time; an impossible candidate is a decline"
                )


def _check_options(node: PricedSubgraph) -> None:
    if not node.options:
        reasons = "; ".join(str(decline) for decline in node.declines) or "none was offered"
        raise ProblemError(
            f"sub-graph {node.id} ({', '.join(node.operators)}) has no candidate: {reasons}"
        )


def _prices(
    tensor: Tensor, kind: str, sources: Iterable[Place], wanted: Iterable[Place]
) -> Iterator[float]:
    """Yield the prices of all boundaries of a kind; those of places with equal names once."""
    name = KINDS[kind]
    ends = [
        {(name(one), _within(kind, one)): one for one in places} for places in (sources, wanted)
    ]
    for source, destination in product(*(places.values() for places in ends)):
        yield tensor.price(kind, source, destination)


def _within(kind: str, place: Place) -> DeviceId | None:
    """Device whose units alone have boundaries of a kind with each other; None if there is no such limit."""
    return place.device if kind == "crossing" else None


def _check_tensor(problem: PlanningProblem, tensor: Tensor) -> None:
    position = {node.id: i for i, node in enumerate(problem.nodes)}
    ids = [id_ for id_ in (tensor.producer, *(u.consumer for u in tensor.uses)) if id_ is not None]
    for id_ in ids:
        if id_ not in position:
            raise ProblemError(f"tensor {tensor.name} names sub-graph {id_}, which does not exist")
    try:
        sources = set(source_places(problem.by_id, tensor))
        wanted = {place for use in tensor.uses for place in wanted_places(problem.by_id, use)}
        prices = [price for kind in KINDS for price in _prices(tensor, kind, sources, wanted)]
    except (KeyError, IndexError) as error:
        raise ProblemError(f"tensor {tensor.name} lacks a price or a layout: {error!r}") from error
    if not all(isfinite(price) and price >= 0 for price in prices):
        raise ProblemError(f"tensor {tensor.name} has a price that is negative or not finite")
    if tensor.producer is not None:
        late = [id_ for id_ in ids[1:] if position[id_] <= position[tensor.producer]]
        if late:
            raise ProblemError(
                f"sub-graph {late[0]} uses {tensor.name} but comes before its producer; "
                f"expected topological order"
            )
