"""Plan: a decision for every sub-graph, with costs and certificates, as a file to read, edit and compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from layoutsel import documents
from layoutsel.planning.explain import Counterfactual, Explanation
from layoutsel.planning.gains import Gains
from layoutsel.planning.hybrid import GUESSED
from layoutsel.planning.makespan import Makespan
from layoutsel.planning.objectives import objectives, state
from layoutsel.planning.old_plans import UPGRADES
from layoutsel.planning.problem import Boundary, PlanningProblem
from layoutsel.planning.residuals import Residuals
from layoutsel.planning.solve import Solution
from layoutsel.planning.stages import Stage, make_stages
from layoutsel.planning.trade_off import TradeOff
from layoutsel.planning.values import MAKESPAN, SUM, Value
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.errors import Decline

SCHEMA_VERSION = 4
"""Version of plan files; older ones from :data:`~layoutsel.planning.old_plans.UPGRADES` are read as well."""
RENEW = "Plan again with 'layoutsel plan MODEL -o FILE'"
"""Advice on a plan file that is too old to be read."""


@dataclass(frozen=True, kw_only=True)
class PlannedSubgraph:
    """One sub-graph of a plan."""

    id: SubgraphId
    operators: tuple[str, ...]
    decision: Decision
    cost_us: float
    """Predicted time, microseconds, boundaries excluded."""
    spread_us: float
    """Uncertainty of `cost_us`, microseconds."""
    source: str
    """Where `cost_us` comes from."""
    names: tuple[str, ...] = ()
    """Names of its operators in the source model."""
    reads: tuple[str, ...] = ()
    """The tensors it reads: ``head_Gemm.0`` is output 0 of head_Gemm, ``input.1`` input 1 of the model."""
    alternatives: tuple[Counterfactual, ...] = ()
    """Every other candidate and what it would cost; empty for a plan that was not explained."""


@dataclass(frozen=True, kw_only=True)
class Uncertainty:
    """Consequences of uncertain costs for a plan."""

    bound_us: float
    """Lower bound on every plan, microseconds, if no cost is lower than its spread allows."""
    loss_us: float
    """Expected gain of time of a run from knowing every cost, microseconds.

    See :mod:`layoutsel.planning.value_of_information`.
    """


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Measured time of the whole model."""

    median_us: float
    spread_us: float
    """Half the distance between the quartiles, microseconds."""
    runs: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Where and how every sub-graph of one model runs on one machine."""

    schema_version: int
    model_name: str
    model_hash: str
    machine: str
    """Fingerprint of the machine that the costs hold for."""
    threads: int | None
    """Threads that the costs hold for; None if nobody said."""
    versions: Mapping[str, str]
    """Versions of everything that the costs depend on."""
    strategy: str
    """Entry of the strategy table that made it, or ``edited``, ``single``, ..."""
    solver: str
    """Name of the solver that proved the bound on the sum."""
    time_s: float
    """Seconds that solving took."""
    objective: str
    """Objective that the plan was chosen by: an entry of :func:`layoutsel.planning.objectives.objectives`."""
    values: Mapping[str, Value]
    """Value and bound per objective: of the sum of costs, and of the plan's own objective."""
    cost_us: float = field(init=False)
    """Predicted sum of costs, microseconds; from `values`."""
    bound_us: float = field(init=False)
    """Proven lower bound on the sum of costs, microseconds; from `values`.

    It holds for every plan of the problem; with an error budget, for every plan of no larger predicted error.
    """
    gap: float = field(init=False)
    """Relative gap between cost and bound; from `values`."""
    score_cost_us: float | None
    """Predicted cost of the plan that ``--strategy score`` makes, microseconds; the difference is joint's gain."""
    subgraphs: tuple[PlannedSubgraph, ...]
    boundaries: tuple[Boundary, ...]
    declines: tuple[Decline, ...]
    results: tuple[str, ...] = ()
    """The tensors that the model returns, named as in :attr:`PlannedSubgraph.reads`."""
    gains: Gains | None = None
    """What simpler ways to choose would cost; None for a plan that was not explained."""
    uncertainty: Uncertainty | None = None
    """What the costs' uncertainty may hide; None if nobody asked."""
    exact: bool = False
    """True if the alternatives' costs are those of the best plan around each; else all else stays as it is."""
    measured: Mapping[str, Measured] = field(default_factory=dict)
    """Measured alternatives by name; this plan's own entry is ``plan``."""
    residuals: Residuals | None = None
    """Where the prediction was off; None if the plan was not measured."""
    precision: str = "f32"
    """Entry of :data:`layoutsel.core.precision.MODES`: which precisions were offered, and what error is allowed."""
    max_rel_error: float | None = None
    """The error that is allowed where the mode takes a budget."""
    order: tuple[SubgraphId, ...] = ()
    """Order in which sub-graphs are called; empty if it does not matter."""
    makespan: Makespan | None = field(init=False)
    """Time with `order`, if devices work while the host does; from `values`, None if the plan does not state it."""
    stages: tuple[Stage, ...] = field(default=(), metadata=documents.OPTIONAL)
    """Parts that are called on their own, each after those that it reads; empty if the model is one stage, ``main``."""
    trade_off: tuple[TradeOff, ...] = ()
    """Plans that time was weighed against error with, the fastest first; empty if the mode takes no budget."""

    def __post_init__(self) -> None:
        total, timed = self.values[SUM], self.values.get(MAKESPAN)
        derived = {
            "cost_us": total.value,
            "bound_us": total.bound,
            "gap": total.gap,
            "makespan": timed and Makespan(us=timed.value, bound_us=timed.bound, order=self.order),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    @property
    def gap_within_spread(self) -> float | None:
        """Relative gap between cost and the bound that allows for uncertainty; None if that is not known."""
        if self.uncertainty is None:
            return None
        return max(self.cost_us - self.uncertainty.bound_us, 0.0) / max(self.cost_us, 1e-9)

    @property
    def spread_us(self) -> float:
        """Uncertainty of `cost_us`, microseconds: errors of distinct sub-graphs are taken as independent.

        Errors of one unit's rooflines are added up, because they share the efficiency that may be wrong.
        """
        spreads: dict[str, float] = {}
        for subgraph in self.subgraphs:
            cause = subgraph.decision.unit if subgraph.source == GUESSED else subgraph.id
            spreads[cause] = spreads.get(cause, 0.0) + subgraph.spread_us
        return math.hypot(*spreads.values())

    @property
    def unit(self) -> str:
        """Unit of the plan's own objective, such as ``us``."""
        return self._own_value.unit

    @property
    def _own_value(self) -> Value:
        """Value of the plan's own objective.

        Plans of version 3 with an error budget state that of the sum alone.
        """
        return self.values.get(self.objective, self.values[SUM])

    @property
    def run_us(self) -> float:
        """Predicted time of a whole run, microseconds: its objective's, or the sum of costs."""
        own = objectives().get(self.objective)
        return self._own_value.value if own and own.is_run_time else self.cost_us

    @property
    def own_measurement(self) -> Measured | None:
        """Measurement of this very plan, which has its name if it won over the chosen one."""
        return self.measured.get(self.strategy) or self.measured.get("plan")

    @property
    def decisions(self) -> dict[SubgraphId, Decision]:
        """Decision by sub-graph."""
        return {subgraph.id: subgraph.decision for subgraph in self.subgraphs}

    @property
    def held_by_stages(self) -> dict[str, tuple[SubgraphId, ...]]:
        """Sub-graphs by stage; empty if the model is one stage."""
        return {stage.name: stage.subgraphs for stage in self.stages}

    @property
    def reads(self) -> dict[SubgraphId, tuple[str, ...]]:
        """The tensors that each sub-graph reads."""
        return {subgraph.id: subgraph.reads for subgraph in self.subgraphs}

    def in_stages(
        self,
        subgraphs: Mapping[str, Sequence[SubgraphId]],
        workers: Mapping[str, str] | None = None,
    ) -> Plan:
        """Cut the plan into stages of given sub-graphs; arguments and errors of :func:`~layoutsel.planning.stages.make_stages`."""
        made = make_stages(subgraphs, self.reads, self.results, workers)
        return replace(self, stages=made)

    def save(self, file: Path | str) -> None:
        """Write the plan to `file`, whole or not at all."""
        documents.save(self, file)

    @classmethod
    def load(cls, file: Path | str) -> Plan:
        """Read what :meth:`save` writes.

        Raises
        ------
        DocumentError
            If `file` is not a whole plan of a schema version that is read.
        """
        return cls.read(documents.load_json(file), file=str(file))

    @classmethod
    def read(cls, document: Any, *, file: str, renew: str = RENEW) -> Plan:
        """Read a plan from JSON's types, of this schema version or an older one.

        Parameters
        ----------
        document
            Parsed JSON.
        file
            Name of the file, for messages.
        renew
            Advice on a plan that is too old to be read.

        Raises
        ------
        DocumentError
            At the first thing that does not fit.
        """
        known = (*UPGRADES, SCHEMA_VERSION)
        documents.check_version(document, "schema_version", known, renew=renew, file=file)
        found = document.get("schema_version") if isinstance(document, dict) else None
        if type(found) is int and found in UPGRADES:
            document = UPGRADES[found](document)
        values = document.get("values") if isinstance(document, dict) else None
        if isinstance(values, dict) and SUM not in values:
            raise documents.DocumentError(file, f"$.values.{SUM}", "nothing", "this objective")
        plan = documents.from_json(cls, document, file=file)
        _check_duplicates(plan, file)
        return plan


def make_plan(  # noqa: PLR0913 - what a plan holds
    problem: PlanningProblem,
    solution: Solution,
    *,
    strategy: str,
    machine: str,
    versions: Mapping[str, str],
    threads: int | None = None,
    score_cost_us: float | None = None,
    measured: Mapping[str, Measured] | None = None,
    explanation: Explanation | None = None,
    uncertainty: Uncertainty | None = None,
) -> Plan:
    """Write down `solution`, priced by `problem`, with its reasons if an `explanation` is given."""
    cost = problem.cost(solution.decisions)
    bounds = {**solution.bounds, SUM: solution.bound_us}
    values, order = state(problem, solution.decisions, bounds)
    reads, results = _uses(problem)
    explained = explanation.subgraphs if explanation else ()
    alternatives = {subgraph.id: subgraph.alternatives for subgraph in explained}
    subgraphs = []
    for node in problem.nodes:
        option = node.option(solution.decisions[node.id])
        subgraphs.append(
            PlannedSubgraph(
                id=node.id,
                operators=node.operators,
                decision=option.decision,
                cost_us=option.cost_us,
                spread_us=option.spread_us,
                source=option.source,
                names=node.names,
                reads=reads[node.id],
                alternatives=alternatives.get(node.id, ()),
            )
        )
    return Plan(
        schema_version=SCHEMA_VERSION,
        model_name=problem.model_name,
        model_hash=problem.model_hash,
        machine=machine,
        threads=threads,
        versions=dict(versions),
        strategy=strategy,
        solver=solution.solver,
        time_s=solution.time_s,
        objective=problem.objective,
        values=values,
        score_cost_us=score_cost_us,
        subgraphs=tuple(subgraphs),
        boundaries=cost.boundaries,
        declines=tuple(decline for node in problem.nodes for decline in node.declines),
        results=results,
        gains=explanation.gains if explanation else None,
        uncertainty=uncertainty,
        exact=explanation.exact if explanation else False,
        measured=dict(measured or {}),
        order=order,
    )


def _uses(
    problem: PlanningProblem,
) -> tuple[Mapping[SubgraphId, tuple[str, ...]], tuple[str, ...]]:
    """Name the tensors that every sub-graph reads, and those that the model returns, in order."""
    found: dict[SubgraphId | None, dict[int, str]] = {node.id: {} for node in problem.nodes}
    for tensor in problem.tensors:
        for use in tensor.uses:
            found.setdefault(use.consumer, {})[use.input_index] = tensor.name
    names = {id_: tuple(uses[index] for index in sorted(uses)) for id_, uses in found.items()}
    results = names.pop(None, ())
    return {id_: reads for id_, reads in names.items() if id_ is not None}, results


def _check_duplicates(plan: Plan, file: str) -> None:
    seen = set()
    for position, subgraph in enumerate(plan.subgraphs):
        if subgraph.id in seen:
            path = f"$.subgraphs[{position}].id"
            raise documents.DocumentError(
                file, path, f"{subgraph.id!r} a second time", "one decision for each sub-graph"
            )
        seen.add(subgraph.id)
