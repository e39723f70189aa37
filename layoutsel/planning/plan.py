"""Plan: a decision for every sub-graph with costs and certificates, as a file to read and edit."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from layoutsel import documents
from layoutsel.documents.saved import Fault, SavedDocument
from layoutsel.planning.explain import Counterfactual
from layoutsel.planning.gains import Gains
from layoutsel.planning.hybrid import GUESSED
from layoutsel.planning.makespan import Makespan
from layoutsel.planning.objectives import objectives
from layoutsel.planning.old_plans import UPGRADES
from layoutsel.planning.problem import Boundary
from layoutsel.planning.residuals import Residuals
from layoutsel.planning.stages import Stage, make_stages
from layoutsel.planning.trade_off import TradeOff
from layoutsel.planning.values import MAKESPAN, SUM, Value
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.errors import Decline

SCHEMA_VERSION = 4
"""Version of plan files.

Older versions in :data:`~layoutsel.planning.old_plans.UPGRADES` can be read as well.
"""
RENEW = "Plan again with 'layoutsel plan MODEL -o FILE'"
"""Advice on a plan file whose version is no longer supported."""


@dataclass(frozen=True, kw_only=True)
class PlannedSubgraph:
    """One sub-graph of a plan."""

    id: SubgraphId
    """Identifier of the sub-graph."""
    operators: tuple[str, ...]
    """Names of its operators."""
    decision: Decision
    """Decision of the plan."""
    cost_us: float
    """Predicted time, microseconds, without boundaries."""
    spread_us: float
    """Uncertainty of `cost_us`, microseconds."""
    source: str
    """Origin of `cost_us`."""
    names: tuple[str, ...] = ()
    """Names of its operators in the source model."""
    reads: tuple[str, ...] = ()
    """Names of the tensors it reads, such as ``head_Gemm.0`` (output 0) or ``input.1``."""
    alternatives: tuple[Counterfactual, ...] = ()
    """All other candidates with their costs; empty for a plan without an explanation."""


@dataclass(frozen=True, kw_only=True)
class Uncertainty:
    """Consequences of uncertain costs for a plan."""

    bound_us: float
    """Lower bound on every plan if no cost is lower than its spread allows, microseconds."""
    loss_us: float
    """Expected gain of a run from knowing every cost, microseconds.

    See :mod:`layoutsel.planning.value_of_information`.
    """


@dataclass(frozen=True, kw_only=True)
class Now:
    """Predicted time at the speed that the machine had when the plan was made."""

    us: float
    """Predicted sum of costs, microseconds."""
    compute: float
    """Rate of arithmetic relative to the machine's best, at most 1."""
    memory: float
    """Read bandwidth of the memory relative to the machine's best, at most 1."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Measured time of the whole model."""

    median_us: float
    """Median time of a run, microseconds."""
    spread_us: float
    """Half the interquartile range, microseconds."""
    runs: int
    """Number of timed runs."""


@dataclass(frozen=True, kw_only=True)
class Plan(SavedDocument):
    """Unit, layout and precision of every sub-graph of one model on one machine."""

    schema_version: int
    """Version of the file format."""
    model_name: str
    """Name of the model."""
    model_hash: str
    """Hash of the model."""
    machine: str
    """Fingerprint of the machine that the costs hold for."""
    threads: int | None
    """Number of threads that the costs hold for; None if unknown."""
    versions: Mapping[str, str]
    """All versions that the costs depend on."""
    strategy: str
    """Entry of the strategy table, or another origin such as ``edited`` or ``single``."""
    solver: str
    """Name of the solver that proved the bound on the sum."""
    time_s: float
    """Time that solving took, seconds."""
    objective: str
    """Objective of the plan, a name in :func:`layoutsel.planning.objectives.objectives`."""
    values: Mapping[str, Value]
    """Values and bounds of the sum of costs and of the plan's own objective, by objective."""
    cost_us: float = field(init=False)
    """Predicted sum of costs, microseconds; from `values`."""
    bound_us: float = field(init=False)
    """Proven lower bound on the sum of costs, microseconds; from `values`.

    It holds for every plan of the problem; with an error budget, for every plan of no larger
    predicted error.
    """
    gap: float = field(init=False)
    """Relative gap between cost and bound; from `values`."""
    score_cost_us: float | None
    """Predicted cost of the plan by ``--strategy score``, microseconds.

    The difference from `cost_us` is the gain of joint choosing.
    """
    subgraphs: tuple[PlannedSubgraph, ...]
    """Sub-graphs in order of execution."""
    boundaries: tuple[Boundary, ...]
    """Boundaries with a price."""
    declines: tuple[Decline, ...]
    """Declined decisions with reasons."""
    results: tuple[str, ...] = ()
    """Tensors that the model returns, named as in :attr:`PlannedSubgraph.reads`."""
    gains: Gains | None = None
    """Predicted times of simpler ways of choosing; None for a plan without an explanation."""
    uncertainty: Uncertainty | None = None
    """Consequences of uncertain costs; None if not computed."""
    exact: bool = False
    """True if each alternative's cost is that of the best plan with it.

    False if it is that of this plan with one decision changed.
    """
    measured: Mapping[str, Measured] = field(default_factory=dict)
    """Measured times of contenders by name; this plan's own entry is ``plan``."""
    residuals: Residuals | None = None
    """Prediction errors by part; None if the plan was not measured."""
    precision: str = "f32"
    """Entry of :data:`layoutsel.core.precision.MODES`: offered precisions and the error limit."""
    max_rel_error: float | None = None
    """Error budget, if the mode takes one."""
    order: tuple[SubgraphId, ...] = ()
    """Order of the calls of sub-graphs; empty if it does not matter."""
    makespan: Makespan | None = field(init=False)
    """Time with `order` if devices and host work concurrently; None if `values` lacks it."""
    stages: tuple[Stage, ...] = field(default=(), metadata=documents.OPTIONAL)
    """Separately callable parts, each after those that it reads; empty for one stage ``main``."""
    now: Now | None = field(default=None, metadata=documents.OPTIONAL)
    """Predicted time at the machine's present speed; None if it was not probed.

    All other predictions hold for the machine at its best.
    """
    shared_spread: float = field(default=0.0, metadata=documents.OPTIONAL)
    """Relative uncertainty that all costs have in common, half the interquartile range."""
    trade_off: tuple[TradeOff, ...] = ()
    """Plans of the trade-off between time and error, the fastest first; empty without a budget."""

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
        """Relative gap between cost and the bound under uncertain costs; None if unknown."""
        if self.uncertainty is None:
            return None
        return max(self.cost_us - self.uncertainty.bound_us, 0.0) / max(self.cost_us, 1e-9)

    @property
    def spread_us(self) -> float:
        """Uncertainty of `cost_us`, microseconds, half the interquartile range.

        Errors of sub-graphs count as independent, besides those that they share. Errors of one
        unit's rooflines are added up, because they share the uncertain efficiency.
        """
        spreads: dict[str, float] = {}
        for subgraph in self.subgraphs:
            cause = subgraph.decision.unit if subgraph.source == GUESSED else subgraph.id
            spreads[cause] = spreads.get(cause, 0.0) + subgraph.spread_us
        return math.hypot(self.shared_spread * self.cost_us, *spreads.values())

    @property
    def unit(self) -> str:
        """Unit of the plan's own objective, such as ``us``."""
        return self._own_value.unit

    @property
    def _own_value(self) -> Value:
        """Value of the plan's own objective.

        Plans of version 3 with an error budget state only the sum.
        """
        return self.values.get(self.objective, self.values[SUM])

    @property
    def run_us(self) -> float:
        """Predicted time of a run, microseconds: the objective's value, or the sum of costs."""
        own = objectives().get(self.objective)
        return self._own_value.value if own and own.is_run_time else self.cost_us

    @property
    def own_measurement(self) -> Measured | None:
        """Measurement of this plan: of a contender that won the race, or of the chosen plan."""
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
        """Names of the tensors that each sub-graph reads."""
        return {subgraph.id: subgraph.reads for subgraph in self.subgraphs}

    def in_stages(
        self,
        subgraphs: Mapping[str, Sequence[SubgraphId]],
        workers: Mapping[str, str] | None = None,
        staying: Container[str] = (),
    ) -> Plan:
        """Divide the plan into stages of given sub-graphs.

        Arguments and errors are those of :func:`~layoutsel.planning.stages.make_stages`.
        """
        made = make_stages(subgraphs, self.reads, self.results, workers, staying)
        return replace(self, stages=made)

    def faults(self) -> Iterator[Fault]:
        """Yield the sub-graphs that have two decisions."""
        seen = set()
        for position, subgraph in enumerate(self.subgraphs):
            if subgraph.id in seen:
                path = f"$.subgraphs[{position}].id"
                yield path, f"{subgraph.id!r} a second time", "one decision for each sub-graph"
            seen.add(subgraph.id)

    @classmethod
    def read(cls, document: Any, *, file: str = "document", renew: str = RENEW) -> Plan:
        """Read a plan from JSON, of this schema version or an older one.

        Parameters
        ----------
        document
            Parsed JSON.
        file
            Name of the file, for messages.
        renew
            Advice on a plan whose version is no longer supported.

        Raises
        ------
        DocumentError
            If the JSON does not fit; the message names the first such field.
        """
        known = (*UPGRADES, SCHEMA_VERSION)
        documents.check_version(document, "schema_version", known, renew=renew, file=file)
        found = document.get("schema_version") if isinstance(document, dict) else None
        if type(found) is int and found in UPGRADES:
            document = UPGRADES[found](document)
        values = document.get("values") if isinstance(document, dict) else None
        if isinstance(values, dict) and SUM not in values:
            raise documents.DocumentError(file, f"$.values.{SUM}", "nothing", "this objective")
        return super().read(document, file=file)
