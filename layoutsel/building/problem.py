"""Planning problems from candidates and costs; the last module with both TVM and the planner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from layoutsel.building.functions import Functions
from layoutsel.cost.graph import Graph, Subgraph
from layoutsel.planning.prices import PriceBoundaries, price_all
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph
from layoutsel.units.base import Admits, Unit
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.devices import DeviceId
from tvm_passes.errors import Decline


@dataclass(frozen=True)
class Candidates:
    """Legal decisions of one sub-graph, and the declined ones with reasons."""

    decisions: tuple[Decision, ...]
    """Legal decisions."""
    declines: tuple[Decline, ...]
    """Declined decisions with reasons."""
    generic: tuple[Decline, ...] = ()
    """Legal decisions for which the unit has no kernel, with reasons; they get generic code."""

    @property
    def only_generic(self) -> bool:
        """True if every legal decision gets generic code."""
        return bool(self.decisions) and len(self.generic) == len(self.decisions)


@dataclass(frozen=True, kw_only=True)
class Priced:
    """Cost of a candidate."""

    us: float
    """Time of one run, microseconds."""
    spread_us: float
    """Uncertainty of the time, microseconds."""
    source: str
    """Origin of the time, such as ``learned``."""
    score_us: float
    """Complexity score of the sub-graph on the decision's unit, microseconds."""


def gather_candidates(
    graph: Graph,
    functions: Functions,
    units: Mapping[str, Unit],
    devices: Mapping[str, Sequence[Sequence[DeviceId]]],
    admits: Admits = lambda _subgraph, _decision: True,
) -> dict[SubgraphId, Candidates]:
    """Collect the candidates and declines of every unit for every sub-graph.

    Parameters
    ----------
    graph
        Graph of the model.
    functions
        Functions of the sub-graphs.
    units
        Units by name.
    devices
        Groups of identical devices of each unit.
    admits
        Function that admits or rejects a decision of a sub-graph.
    """
    gathered = {}
    for subgraph in graph.subgraphs:
        answers = [
            answer
            for unit in units.values()
            for answer in unit.candidates(
                subgraph, functions[subgraph.id], admits, devices[unit.name]
            )
        ]
        decisions = tuple(answer for answer in answers if isinstance(answer, Decision))
        works = decisions if subgraph.flops else ()
        reasons = [functions.generic(subgraph.id, d, units[d.unit].backend) for d in works]
        gathered[subgraph.id] = Candidates(
            decisions,
            tuple(answer for answer in answers if isinstance(answer, Decline)),
            tuple(reason for reason in reasons if reason is not None),
        )
    return gathered


def planning_problem(
    graph: Graph,
    functions: Functions,
    candidates: Mapping[SubgraphId, Candidates],
    price: Callable[[Subgraph, Decision], Priced | Decline],
    boundaries: PriceBoundaries,
    *,
    name: str,
    content_hash: str,
) -> PlanningProblem:
    """Price every candidate and every boundary of `graph`.

    Parameters
    ----------
    graph
        Graph of the model.
    functions
        Functions of the sub-graphs.
    candidates
        Candidates of each sub-graph.
    price
        Function that prices a candidate, or declines it.
    boundaries
        Function that prices boundaries.
    name, content_hash
        Name and hash of the model.

    Raises
    ------
    ProblemError
        If a sub-graph has no candidate left.
    """
    nodes = tuple(
        _node(functions, subgraph, candidates[subgraph.id], price) for subgraph in graph.subgraphs
    )
    return PlanningProblem(
        nodes=nodes,
        tensors=price_all(graph.tensors, nodes, boundaries),
        model_name=name,
        model_hash=content_hash,
    )


def _node(
    functions: Functions,
    subgraph: Subgraph,
    candidates: Candidates,
    price: Callable[[Subgraph, Decision], Priced | Decline],
) -> PricedSubgraph:
    options, declines = [], [*candidates.declines, *candidates.generic]
    for decision in candidates.decisions:
        priced = price(subgraph, decision)
        if isinstance(priced, Decline):
            declines.append(priced)
            continue
        inputs, outputs = functions.ports(subgraph.id, decision)
        options.append(
            Option(
                decision=decision,
                cost_us=priced.us,
                spread_us=priced.spread_us,
                source=priced.source,
                score_us=priced.score_us,
                in_layouts=inputs,
                out_layouts=outputs,
            )
        )
    return PricedSubgraph(
        id=subgraph.id,
        options=tuple(options),
        operators=subgraph.operators,
        names=subgraph.names,
        declines=tuple(declines),
    )
