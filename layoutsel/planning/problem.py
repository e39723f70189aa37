"""Planning problem: sub-graphs with their candidates, tensors with their boundary costs.

It is independent of TVM: ids, names and microseconds only.

The boundary cost belongs to a *tensor*, not to an edge: a tensor that several consumers want in the
same layout is transformed once, handed to a unit once, and copied to a memory once. With ``s`` the
producer's option, a tensor costs::

    sum of transform_us[s.layout, l] for every distinct layout l that some consumer wants
  + sum of crossing_us[s.unit, u]    for every distinct unit u on s's device with a consumer
  + sum of copy_us[s.memory, m]      for every distinct memory m of some consumer's device
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
"""One host that calls devices with their own memory."""


class ProblemError(LayoutselError):
    """A planning problem that is inconsistent or has no legal plan."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """A candidate of a sub-graph: a legal decision with its price."""

    decision: Decision
    """Unit, layout, precision and algorithm."""
    cost_us: float
    """Time of the sub-graph under this decision, microseconds, without boundaries."""
    in_layouts: tuple[str, ...]
    """Layout in which each activation input is wanted."""
    out_layouts: tuple[str, ...]
    """Layout in which each output is produced."""
    score_us: float | None = None
    """Complexity score of the sub-graph on this unit, microseconds; None to use `cost_us`."""
    spread_us: float = 0.0
    """Uncertainty of `cost_us`, microseconds."""
    source: str = "given"
    """Origin of `cost_us`, such as ``measured`` or ``roofline``."""
    memory: str = field(init=False)
    """Name of the memory of the decision's device."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "memory", memory_name(self.decision.device))

    @property
    def wanted(self) -> tuple[Place, ...]:
        """Place in which each activation input is wanted."""
        return self._places(self.in_layouts)

    @property
    def made(self) -> tuple[Place, ...]:
        """Place in which each output is produced."""
        return self._places(self.out_layouts)

    def _places(self, layouts: tuple[str, ...]) -> tuple[Place, ...]:
        unit, device = self.decision.unit, self.decision.device
        return tuple(Place(layout, unit, device) for layout in layouts)


@dataclass(frozen=True, kw_only=True)
class PricedSubgraph:
    """A sub-graph as the planner sees it."""

    id: SubgraphId
    """Identifier of the sub-graph."""
    options: tuple[Option, ...]
    """Candidates of the sub-graph."""
    operators: tuple[str, ...] = ()
    """Names of its operators, such as ``nn.conv2d``."""
    names: tuple[str, ...] = ()
    """Names of its operators in the source model, such as ONNX node names."""
    declines: tuple[Decline, ...] = ()
    """Declined decisions with reasons."""

    def option(self, decision: Decision) -> Option:
        """Find the candidate with `decision`.

        Raises
        ------
        IllegalDecision
            If `decision` is not a candidate; the message quotes a known decline.
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
    """A transform, crossing or copy of a plan."""

    kind: str
    """One of :data:`KINDS`."""
    tensor: str
    """Name of the tensor, :attr:`Tensor.name`."""
    source: str
    """Layout, unit or memory of the producer, for a transform, crossing or copy."""
    destination: str
    """Layout, unit or memory of the consumers."""
    cost_us: float
    """Price of the boundary, microseconds."""
    consumers: tuple[str, ...]
    """Ids of the consumers; ``output`` for an output of the model."""


@dataclass(frozen=True, kw_only=True)
class PlanCost:
    """Cost of a plan, by part."""

    subgraphs: Mapping[SubgraphId, float]
    """Cost of each sub-graph, microseconds."""
    boundaries: tuple[Boundary, ...]
    """Boundaries of the plan with their prices."""

    @property
    def total_us(self) -> float:
        """Sum of all parts, microseconds."""
        return sum(self.subgraphs.values()) + sum(b.cost_us for b in self.boundaries)


@dataclass(frozen=True, kw_only=True)
class PlanningProblem:
    """Candidates of all sub-graphs and boundary prices of all tensors."""

    nodes: tuple[PricedSubgraph, ...]
    """Sub-graphs in topological order."""
    tensors: tuple[Tensor, ...]
    """Tensors with their uses and prices."""
    model_name: str = ""
    """Name of the model."""
    model_hash: str = ""
    """Hash of the model."""
    objective: str = SUM
    """Objective of planning, a name in :func:`layoutsel.planning.objectives.objectives`."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """Maximum values of other quantities by name, such as ``rel_error``."""
    resources: ResourceModel = ONE_HOST
    """Resources of each step, for objectives of concurrent work."""
    stands_for: Mapping[str, int] = field(default_factory=dict)
    """Maximum number of devices that the device of a memory stands for, by memory; 1 for others.

    Some of many identical devices have no candidates, as plans gain nothing from more of them.
    Lower bounds must hold even for plans that use them.
    """
    shared_spread: float = 0.0
    """Relative uncertainty that all costs have in common: of the machine, and of running in a plan.

    Half the interquartile range.
    """

    def __post_init__(self) -> None:
        _check_nodes(self)
        position = {node.id: i for i, node in enumerate(self.nodes)}
        for tensor in self.tensors:
            _check_tensor(self, tensor, position)

    @cached_property
    def by_id(self) -> Mapping[SubgraphId, PricedSubgraph]:
        """Nodes by sub-graph id."""
        return {node.id: node for node in self.nodes}

    @property
    def units(self) -> tuple[str, ...]:
        """Units of all candidates, sorted."""
        return tuple(sorted({o.decision.unit for node in self.nodes for o in node.options}))

    @property
    def layouts(self) -> tuple[str, ...]:
        """Layouts of all candidates, sorted."""
        return tuple(sorted({o.decision.layout for node in self.nodes for o in node.options}))

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions of all candidates, sorted."""
        return tuple(sorted({o.decision.precision for node in self.nodes for o in node.options}))

    def cost(self, decisions: Mapping[SubgraphId, Decision]) -> PlanCost:
        """Predict the cost of `decisions`, by part.

        Raises
        ------
        IllegalDecision
            If a sub-graph has no decision, or one that is not a candidate.
        """
        chosen = {node.id: node.option(_decision_of(decisions, node.id)) for node in self.nodes}
        boundaries = [b for tensor in self.tensors for b in boundaries_of(tensor, chosen)]
        costs = {id_: option.cost_us for id_, option in chosen.items()}
        return PlanCost(subgraphs=costs, boundaries=tuple(boundaries))

    def offers(self, decisions: Mapping[SubgraphId, Decision]) -> bool:
        """True if every decision is a candidate of its sub-graph."""
        return all(
            any(option.decision == decisions.get(node.id) for option in node.options)
            for node in self.nodes
        )

    def restrict(self, keep: Callable[[PricedSubgraph, Option], bool]) -> PlanningProblem:
        """Copy the problem with only the candidates that `keep` admits.

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
        # Fewer candidates need no other prices, so the slow check of tensors is not repeated.
        vars(narrowed).pop("by_id", None)
        object.__setattr__(narrowed, "nodes", nodes)
        return narrowed


def source_places(by_id: Mapping[SubgraphId, PricedSubgraph], tensor: Tensor) -> list[Place]:
    """List the place of `tensor` for each option of its producer; one for an input of the model."""
    if tensor.producer is None:
        return [OUTSIDE]
    return [option.made[tensor.output_index] for option in by_id[tensor.producer].options]


def wanted_places(by_id: Mapping[SubgraphId, PricedSubgraph], use: TensorUse) -> list[Place]:
    """List the place wanted by each option of the consumer; one for an output of the model."""
    if use.consumer is None:
        return [OUTSIDE]
    return [option.wanted[use.input_index] for option in by_id[use.consumer].options]


def _decision_of(decisions: Mapping[SubgraphId, Decision], id_: SubgraphId) -> Decision:
    if id_ not in decisions:
        raise IllegalDecision(f"sub-graph {id_} has no decision; a plan needs one for every one")
    return decisions[id_]


def boundaries_of(tensor: Tensor, chosen: Mapping[SubgraphId, Option]) -> Iterable[Boundary]:
    """Yield the boundaries of `tensor` if sub-graphs use the options `chosen`."""
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
    """Yield the prices of all boundaries of a kind; those between places of equal names once."""
    name = KINDS[kind]
    ends = [
        {(name(one), _within(kind, one)): one for one in places} for places in (sources, wanted)
    ]
    for source, destination in product(*(places.values() for places in ends)):
        yield tensor.price(kind, source, destination)


def _within(kind: str, place: Place) -> DeviceId | None:
    """Return the device to which boundaries of a kind are limited; None without a limit."""
    return place.device if kind == "crossing" else None


def _check_tensor(
    problem: PlanningProblem, tensor: Tensor, position: Mapping[SubgraphId, int]
) -> None:
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
