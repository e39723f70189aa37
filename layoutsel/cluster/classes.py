"""Machine classes of a topology: equal nodes share a plan of the whole network, and its times."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from layoutsel.cluster.atoms import MOST_ATOMS, atoms_of
from layoutsel.cluster.problem import AtomGraph, ClassCosts, contract
from layoutsel.cluster.topology import Node, Topology
from layoutsel.compile.generic import offered
from layoutsel.compile.make_plan import price_boundaries, priced_problem
from layoutsel.compile.offers import Offers
from layoutsel.compile.options import Options
from layoutsel.compile.session import Session
from layoutsel.compile.versions import all_versions
from layoutsel.cost.place import OUTSIDE, Place
from layoutsel.cost.tensor import Tensor
from layoutsel.planning.objectives import decide
from layoutsel.planning.plan import Plan, make_plan
from layoutsel.planning.prices import UnpricedBoundary
from layoutsel.planning.problem import Option, PlanningProblem, boundaries_of
from layoutsel.planning.values import SUM
from tvm_passes.decision import SubgraphId
from tvm_passes.devices import HOST_DEVICE
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
    def chosen(self) -> Mapping[SubgraphId, Option]:
        """Candidate of each sub-graph in the plan."""
        decisions = self.plan.decisions
        return {node.id: node.option(decisions[node.id]) for node in self.problem.nodes}


def plan_class(
    model: Any, machine_class: MachineClass, options: Options, time_limit_s: float = 10.0
) -> PlannedClass:
    """Plan a whole network on one node of a class, for the sum of times.

    Raises
    ------
    LayoutselError
        If the machine file cannot be read or the model cannot be planned for it; names the class.
    """
    own = replace(
        options,
        machine=machine_class.machine or options.machine,
        threads=machine_class.threads or (None if machine_class.machine else options.threads),
        units=machine_class.units or options.units,
        objective=SUM if not options.mode.limits else None,
    )
    try:
        session = Session.open(model, own)
        offers = offered(session)
        problem = priced_problem(offers, own.cost, own.pins, own.measure_budget_s)
        found = decide(problem, strategy=own.strategy, time_limit_s=time_limit_s)
    except LayoutselError as error:
        where = ", ".join(machine_class.nodes)
        raise LayoutselError(f"planning for {where}: {error}") from error
    made = make_plan(
        problem,
        found.solution,
        strategy=own.strategy,
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


def atom_graph(planned: Sequence[PlannedClass], most: int = MOST_ATOMS) -> AtomGraph:
    """Cut the network into atoms, by the mean times of all classes.

    Parameters
    ----------
    planned
        Classes with their plans.
    most
        Maximum number of atoms.
    """
    first = planned[0]
    graph = first.offers.session.graph
    mean_us = {
        id_: sum(one.chosen[id_].cost_us for one in planned) / len(planned) for id_ in graph.ids
    }
    atoms = atoms_of(graph, mean_us, most=most)
    return contract(
        atoms,
        graph.tensors,
        {one.id: float(sum(spec.nbytes for spec in one.weights)) for one in graph.subgraphs},
        model_name=first.problem.model_name,
        model_hash=first.problem.model_hash,
    )


def class_costs(graph: AtomGraph, planned: Sequence[PlannedClass]) -> Mapping[str, ClassCosts]:
    """Compute the times of the atoms in each class, from the prices of its planning problem.

    An atom is a stage: it reads tensors as its own class makes them, and transforms them itself. A
    tensor of another class is first transformed to what its own class makes.
    """
    return {
        one.machine_class.name: ClassCosts(
            us={atom: sum(_parts_us(graph, atom, one)) for atom in graph.atoms},
            spread_us={
                atom: sum(one.chosen[id_].spread_us ** 2 for id_ in held) ** 0.5
                for atom, held in graph.atoms.items()
            },
            repack_us={
                other.machine_class.name: found
                for other in planned
                if other is not one and (found := _repack_us(graph, other, one))
            },
            shared_spread=one.problem.shared_spread,
        )
        for one in planned
    }


def _parts_us(graph: AtomGraph, atom: str, planned: PlannedClass) -> Iterator[float]:
    """Yield the times of an atom's sub-graphs and boundaries, microseconds.

    Boundaries are those of its inputs, and of results of the model that it makes.
    """
    held, chosen = set(graph.atoms[atom]), planned.chosen
    yield from (chosen[id_].cost_us for id_ in held)
    for tensor in planned.problem.tensors:
        uses = tuple(
            use
            for use in tensor.uses
            if use.consumer in held or (use.consumer is None and tensor.producer in held)
        )
        if uses:
            here = replace(tensor, uses=uses)
            yield from (boundary.cost_us for boundary in boundaries_of(here, chosen))


def _repack_us(graph: AtomGraph, sender: PlannedClass, receiver: PlannedClass) -> dict[str, float]:
    """Price the transforms of tensors that another class made, microseconds; without free ones.

    The receiver transforms in its host memory. Copies from and to devices count as well.
    """
    tensors = {tensor.name: tensor for tensor in receiver.problem.tensors}
    asked: list[tuple[str, UnpricedBoundary]] = []
    found: dict[str, float] = {}
    for joined in graph.tensors:
        if joined.producer is None:
            continue
        tensor = tensors[graph.name(joined)]
        made, wanted = _made(tensor, sender), _made(tensor, receiver)
        if made.layout != wanted.layout:
            asked.append(
                (
                    joined.name,
                    UnpricedBoundary(
                        kind="transform",
                        tensor=tensor,
                        source=Place(made.layout),
                        destination=Place(wanted.layout),
                    ),
                )
            )
        if wanted.device != HOST_DEVICE:
            pair = OUTSIDE.memory, wanted.memory
            found[joined.name] = tensor.copy_us.get(pair, 0.0)
    prices = price_boundaries(receiver.offers, [boundary for _, boundary in asked])
    for (name, _), us in zip(asked, prices, strict=True):
        found[name] = found.get(name, 0.0) + us
    return {name: us for name, us in found.items() if us}


def _made(tensor: Tensor, planned: PlannedClass) -> Place:
    assert tensor.producer is not None
    return planned.chosen[tensor.producer].made[tensor.output_index]
