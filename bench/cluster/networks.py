"""Networks with the times of their atoms on the modelled machines, by the roofline model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import machines

from layoutsel.cluster.classes import atom_graph, costs_of, machine_classes, plan_class
from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.problem import AtomGraph, ClassCosts, Cluster
from layoutsel.cluster.topology import SCHEMA_VERSION, Header, Node, Topology
from layoutsel.compile.options import Options
from layoutsel.model.import_load import load_model
from layoutsel.planning.plan import Plan


@dataclass(frozen=True)
class Priced:
    """A network with its times."""

    graph: AtomGraph
    costs: Mapping[str, ClassCosts]
    plans: Mapping[str, Plan]

    @property
    def weight_bytes(self) -> float:
        """Bytes of all weights."""
        return sum(self.graph.weight_bytes.values())

    def on(self, topology: Topology) -> Cluster:
        """The network over a topology of the modelled machines."""
        classes = {node.id: Path(node.machine).stem for node in topology.computing}
        return Cluster(
            graph=self.graph, classes=classes, costs=self.costs, routes=MessageRoutes(topology)
        )


def priced(model: str, kinds: Sequence[str]) -> Priced:
    """Plan a network for each machine and cut it into atoms."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        machines.write(folder)
        nodes = tuple(Node(id=kind, machine=f"{kind}.json") for kind in kinds)
        header = Header(schema_version=SCHEMA_VERSION, origin=nodes[0].id)
        catalogue = Topology(directed=False, multigraph=False, graph=header, nodes=nodes, links=())
        loaded = load_model(model)
        planned = [
            plan_class(loaded, one, Options(cost="roofline"))
            for one in machine_classes(catalogue, folder)
        ]
    graph = replace(atom_graph(planned), model_name=model)
    return Priced(
        graph=graph,
        costs=costs_of(graph, planned),
        plans={one.machine_class.name: one.plan.in_stages(graph.atoms) for one in planned},
    )
