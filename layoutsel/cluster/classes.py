"""Machine classes of a topology: equal nodes share a plan of the whole network, and its times."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from layoutsel.cluster.atoms import MOST_ATOMS, atoms_of
from layoutsel.cluster.class_costs import ClassProblem, class_costs
from layoutsel.cluster.problem import AtomGraph, ClassCosts, contract
from layoutsel.cluster.topology import Node, Topology
from layoutsel.compile.generic import offered
from layoutsel.compile.make_plan import price_boundaries, priced_problem
from layoutsel.compile.offers import Offers
from layoutsel.compile.options import Options
from layoutsel.compile.session import Session
from layoutsel.compile.versions import all_versions
from layoutsel.planning.new_plan import make_plan
from layoutsel.planning.objectives import decide
from layoutsel.planning.plan import Plan
from layoutsel.planning.prices import UnpricedBoundary
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.values import SUM
from tvm_passes.decision import SubgraphId
from tvm_passes.errors import LayoutselError

_HERE = "here"
"""Name of this machine's class."""


@dataclass(frozen=True, kw_only=True)
class MachineClass:
    """Nodes with equal machine files, threads and units: one plan and one artifact serve all."""

    name: str
    """Name, unique in the topology."""
    machine: Path | None
    """File of the machine; None for this machine."""
    threads: int | None
    """Number of threads; None for those of the machine."""
    units: tuple[str, ...]
    """Compute units to choose from; empty for all available ones."""
    nodes: tuple[str, ...]
    """Nodes of the class."""


def machine_classes(topology: Topology, folder: Path) -> tuple[MachineClass, ...]:
    """Group the nodes of a topology by machine.

    Parameters
    ----------
    topology
        Topology with its nodes.
    folder
        Folder that machine files are relative to.
    """
    groups: dict[tuple[str, int | None, tuple[str, ...]], list[Node]] = {}
    for node in topology.computing:
        groups.setdefault((node.machine, node.threads, tuple(node.units)), []).append(node)
    found: list[MachineClass] = []
    names: set[str] = set()
    for (machine, threads, units), nodes in groups.items():
        name = _name(machine, threads, units, names)
        names.add(name)
        found.append(
            MachineClass(
                name=name,
                machine=folder / machine if machine else None,
                threads=threads,
                units=units,
                nodes=tuple(node.id for node in nodes),
            )
        )
    return tuple(found)


def _name(machine: str, threads: int | None, units: Sequence[str], taken: set[str]) -> str:
    parts = [Path(machine).stem if machine else _HERE]
    parts += [f"{threads}t"] if threads is not None else []
    name = re.sub(r"[^A-Za-z0-9_-]", "_", "-".join([*parts, *units]))
    number = 2
    unique = name
    while unique in taken:
        unique, number = f"{name}-{number}", number + 1
    return unique


@dataclass(frozen=True, kw_only=True)
class PlannedClass:
    """A machine class with its candidates and its plan of the whole network."""

    machine_class: MachineClass
    """Class of the nodes."""
    offers: Offers = field(repr=False)
    """Candidates of the network on such a node."""
    problem: PlanningProblem = field(repr=False)
    """Planning problem of the network on one such node."""
    plan: Plan = field(repr=False)
    """Plan of the whole network on one such node."""

    @property
    def on_node(self) -> ClassProblem:
        """Network on one such node."""
        return ClassProblem(problem=self.problem, decisions=self.plan.decisions)


def problem_of_class(
    model: Any, machine_class: MachineClass, options: Options
) -> tuple[Offers, PlanningProblem]:
    """Price a whole network on one node of a class.

    Raises
    ------
    LayoutselError
        If the machine file cannot be read or the model cannot be priced for it; names the class.
    """
    own = replace(
        options,
        machine=machine_class.machine or options.machine,
        threads=machine_class.threads or (None if machine_class.machine else options.threads),
        units=machine_class.units or options.units,
        objective=SUM if not options.mode.limits else None,
    )
    with _planning_for(machine_class):
        session = Session.open(model, own)
        offers = offered(session)
        return offers, priced_problem(offers, own.cost, own.pins, own.measure_budget_s)


def plan_class(
    model: Any, machine_class: MachineClass, options: Options, time_limit_s: float = 10.0
) -> PlannedClass:
    """Plan a whole network on one node of a class, for the sum of times.

    Raises
    ------
    LayoutselError
        If the machine file cannot be read or the model cannot be planned for it; names the class.
    """
    offers, problem = problem_of_class(model, machine_class, options)
    session, strategy = offers.session, options.strategy
    with _planning_for(machine_class):
        found = decide(problem, strategy=strategy, time_limit_s=time_limit_s)
    made = make_plan(
        problem,
        found.solution,
        strategy=strategy,
        machine=session.described.fingerprint,
        versions=all_versions(),
        threads=session.threads,
    )
    mode = session.precision
    return PlannedClass(
        machine_class=machine_class,
        offers=offers,
        problem=problem,
        plan=replace(made, precision=mode.name),
    )


@contextmanager
def _planning_for(machine_class: MachineClass) -> Iterator[None]:
    """Name the nodes of a class in errors of planning for it."""
    try:
        yield
    except LayoutselError as error:
        where = ", ".join(machine_class.nodes)
        raise LayoutselError(f"planning for {where}: {error}") from error


def atom_graph(planned: Sequence[PlannedClass], most: int = MOST_ATOMS) -> AtomGraph:
    """Cut the network into atoms, by the mean times of all classes.

    Parameters
    ----------
    planned
        Classes with their plans.
    most
        Maximum number of atoms.
    """
    graph = planned[0].offers.session.graph
    times = [{sub.id: sub.cost_us for sub in one.plan.subgraphs} for one in planned]
    mean_us = {id_: sum(us[id_] for us in times) / len(times) for id_ in graph.ids}
    return graph_in_atoms(planned[0], atoms_of(graph, mean_us, most=most))


def graph_in_atoms(planned: PlannedClass, atoms: Mapping[str, Sequence[SubgraphId]]) -> AtomGraph:
    """Join the sub-graphs of a network's atoms; see :func:`contract`."""
    graph = planned.offers.session.graph
    return contract(
        atoms,
        graph.tensors,
        {one.id: float(sum(spec.nbytes for spec in one.weights)) for one in graph.subgraphs},
        model_name=planned.problem.model_name,
        model_hash=planned.problem.model_hash,
    )


def costs_of(graph: AtomGraph, planned: Sequence[PlannedClass]) -> Mapping[str, ClassCosts]:
    """Compute the times of the atoms in each class; see :func:`class_costs`."""
    offers = {one.machine_class.name: one.offers for one in planned}

    def price(name: str, boundaries: Sequence[UnpricedBoundary]) -> Sequence[float]:
        return price_boundaries(offers[name], boundaries)

    return class_costs(graph, {one.machine_class.name: one.on_node for one in planned}, price)
