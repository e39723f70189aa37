"""Distributions: which node runs which part of a network, by target; files to read and edit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from layoutsel import documents
from layoutsel.cluster.distribution_checks import faults
from layoutsel.cluster.matrix import matrix
from layoutsel.cluster.problem import AtomGraph, ClassCosts
from layoutsel.cluster.segments import Distribution, Metric, Route, Segment, Target, Transfer
from layoutsel.cluster.statistics import Statistics
from layoutsel.cluster.topology import Topology
from layoutsel.planning.check_fits import PlanMismatch
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
RENEW = "Plan again with 'layoutsel cluster plan MODEL --topology FILE -o FILE'"
"""Advice on a distribution file whose version is no longer supported."""


@dataclass(frozen=True, kw_only=True)
class Distributions:
    """Distributions of one network over one topology, by target."""

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

    def check_model(self, model_hash: str) -> None:
        """Reject distributions of another model.

        Raises
        ------
        PlanMismatch
            If the hashes differ.
        """
        if self.model_hash != model_hash:
            raise PlanMismatch(
                f"the distributions are of another model, {self.model_name}: got the hash "
                f"{model_hash}; expected {self.model_hash}"
            )

    def save(self, file: Path | str) -> None:
        """Write the distributions to `file` atomically."""
        documents.save(self, file)

    @classmethod
    def load(cls, file: Path | str) -> Distributions:
        """Read distributions that :meth:`save` wrote.

        Raises
        ------
        DocumentError
            If `file` is not a complete and consistent document.
        """
        return cls.read(documents.load_json(file), file=str(file))

    @classmethod
    def read(cls, document: Any, *, file: str = "document") -> Distributions:
        """Read distributions from JSON; errors as in :meth:`load`."""
        documents.check_version(
            document, "schema_version", (SCHEMA_VERSION,), renew=RENEW, file=file
        )
        found = documents.from_json(cls, document, file=file)
        found.topology.check(file=file)
        found.statistics.check(found.topology, file=file)
        nodes = [node.id for node in found.topology.computing]
        atoms = {name: tuple(plan.held_by_stages) for name, plan in found.plans.items()}
        for path, got, expected in faults(found.distributions, nodes, found.classes, atoms):
            raise documents.DocumentError(file, path, got, expected)
        return found
