"""Distributions: which node runs which part of a network, by target; files to read and edit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from layoutsel import documents
from layoutsel.cluster.distribution_checks import distribution_faults
from layoutsel.cluster.engine_times import FREE, EngineTimes
from layoutsel.cluster.matrix import matrix
from layoutsel.cluster.problem import AtomGraph, ClassCosts
from layoutsel.cluster.segments import Distribution, Metric, Route, Segment, Target, Transfer
from layoutsel.cluster.statistics import Statistics
from layoutsel.cluster.topology import Topology
from layoutsel.documents.saved import Fault, SavedDocument, below
from layoutsel.planning.plan import Plan
from tvm_passes.errors import LayoutselError

__all__ = [
    "SCHEMA_VERSION",
    "Distribution",
    "Distributions",
    "Metric",
    "Route",
    "Segment",
    "Target",
    "Transfer",
]

SCHEMA_VERSION = 1
"""Version of distribution files."""


@dataclass(frozen=True, kw_only=True)
class Distributions(SavedDocument):
    """Distributions of one network over one topology, by target."""

    VERSIONS = (SCHEMA_VERSION,)
    ADVICE = "Plan again with 'layoutsel cluster plan MODEL --topology FILE -o FILE'"

    schema_version: int
    """Version of the file format."""
    model_name: str
    """Name of the model."""
    model_hash: str
    """Hash of the model."""
    topology: Topology
    """Topology that they were made for."""
    statistics: Statistics
    """Snapshot that they were made for."""
    classes: Mapping[str, str]
    """Machine class by node: nodes of one class have equal plans and artifacts."""
    plans: Mapping[str, Plan]
    """Plan of the whole network with one stage for each atom, by machine class."""
    distributions: tuple[Distribution, ...]
    """One distribution for each target."""
    graph: AtomGraph | None = field(default=None, metadata=documents.OPTIONAL)
    """Network as atoms and the tensors between them; None if it is not known."""
    costs: Mapping[str, ClassCosts] = field(default_factory=dict, metadata=documents.OPTIONAL)
    """Times of the atoms, by machine class; needed to plan again."""
    engine: EngineTimes = field(default=FREE, metadata=documents.OPTIONAL)
    """Time of the engine that the predictions contain; that of links measured through an engine is
    among the links' own."""

    def __getitem__(self, target: str) -> Distribution:
        """Find the first distribution for a target, by its name or :attr:`Target.label`.

        Raises
        ------
        LayoutselError
            If there is none; the message names all targets.
        """
        for one in self.distributions:
            if target in (one.target.name, one.target.label):
                return one
        known = ", ".join(one.target.label for one in self.distributions)
        raise LayoutselError(f"no distribution for the target {target!r}; expected one of {known}")

    def matrix(self) -> str:
        """Table of all metrics of all distributions, with the bound of each metric."""
        return matrix(self.distributions)

    def measured(self, target: str, values: Mapping[str, float]) -> Distributions:
        """Copy with measured metrics of a target's distribution, in the metrics' units."""
        one = self[target]
        metrics = {
            name: replace(metric, measured=values.get(name, metric.measured))
            for name, metric in one.metrics.items()
        }
        return replace(
            self,
            distributions=tuple(
                replace(each, metrics=metrics) if each is one else each
                for each in self.distributions
            ),
        )

    def faults(self) -> Iterator[Fault]:
        """Yield the inconsistencies; later ones may follow from the first."""
        yield from below("$.topology", self.topology.faults())
        yield from below("$.statistics", self.statistics.faults(self.topology))
        yield from below("$.engine", self.engine.faults())
        nodes = [node.id for node in self.topology.computing]
        atoms = {name: tuple(plan.held_by_stages) for name, plan in self.plans.items()}
        yield from distribution_faults(self.distributions, nodes, self.classes, atoms)
