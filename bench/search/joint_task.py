"""Task of the joint bench: nodes and links, question, and validation accuracies with common weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from layoutsel import documents
from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.statistics import NodeState, Statistics
from layoutsel.cluster.topology import Header, Link, Node, Topology
from layoutsel.search.default_spaces import CHAINS
from layoutsel.search.fastest import fastest
from layoutsel.search.front import FrontPoint
from layoutsel.search.joint.question import JOINT
from layoutsel.search.joint.search import CHECKPOINT
from layoutsel.search.joint.tasks import SharedTraining, TrainingSchedule
from layoutsel.search.joint.trainer import JointTrainer
from layoutsel.search.prices import PriceTable
from layoutsel.search.run_folder import SearchQuestion, routes_of_question
from layoutsel.search.space import Architecture, Space

QUERIES, EPOCHS = 60, 40
CHANCE = 0.1
"""Accuracy that counts as nothing."""


Ends = tuple[str, str, float, float]
"""Both ends of a link, its rate in gigabits per second, and its round trip in microseconds."""


@dataclass(frozen=True)
class Scenario:
    """Nodes and links; the first node is the origin."""

    memory_bytes: dict[str, float | None]
    """Memory of each node."""
    busy: dict[str, float]
    """Share of processors that other work occupies."""
    links: tuple[Ends, ...]


SCENARIOS = {
    "small nodes": Scenario(
        memory_bytes={"terminal": 60e3, "a": 150e3, "b": 150e3, "c": 150e3},
        busy={"terminal": 0.95, "a": 0.9, "b": 0.9, "c": 0.9},
        links=(
            ("terminal", "a", 0.005, 1e3),
            ("a", "b", 0.005, 1e3),
            ("b", "c", 0.005, 1e3),
            ("terminal", "b", 0.002, 2e3),
            ("a", "c", 0.002, 2e3),
            ("terminal", "c", 0.002, 2e3),
        ),
    ),
    "server": Scenario(
        memory_bytes={"terminal": 100e3, "hub": 400e3, "server": None},
        busy={"terminal": 0.95, "hub": 0.75},
        links=(
            ("terminal", "hub", 0.02, 1e3),
            ("hub", "server", 0.1, 1e3),
            ("terminal", "server", 0.01, 4e3),
        ),
    ),
}
"""A network of nodes with little memory, and two of them in front of a server."""


def question(scenario: Scenario) -> SearchQuestion:
    """Question of a scenario."""
    names = tuple(scenario.memory_bytes)
    topology = Topology(
        directed=False,
        multigraph=False,
        graph=Header(schema_version=1, origin=names[0]),
        nodes=tuple(
            Node(id=name, threads=1, memory_bytes=size)
            for name, size in scenario.memory_bytes.items()
        ),
        links=tuple(
            Link(source=a, target=b, gbps=gbps, rtt_us=rtt_us)
            for a, b, gbps, rtt_us in scenario.links
        ),
    )
    states = {name: NodeState(others_busy=share) for name, share in scenario.busy.items()}
    settings = {"queries": QUERIES, "networks": 1, "epochs": EPOCHS, "retrain_epochs": 1}
    return SearchQuestion(
        kind=JOINT,
        space=CHAINS["mnist1d"],
        topology=topology,
        statistics=Statistics(nodes=states),
        seed=0,
        settings={name: float(value) for name, value in settings.items()},
        choices={"objective": "inference", "cost": "learned"},
    )


class Oracle:
    """Validation accuracies with common weights, kept in a file."""

    def __init__(self, folder: Path, asked: SearchQuestion, threads: int) -> None:
        self.file = folder / "accuracies.json"
        self.known: dict[Architecture, float] = {}
        if self.file.exists():
            for entry in json.loads(self.file.read_text()):
                self.known[documents.from_json(Architecture, entry[0])] = entry[1]
        schedule = TrainingSchedule(epochs=EPOCHS)
        task = SharedTraining(
            space=asked.space,
            schedule=schedule,
            seed=0,
            threads=threads,
            checkpoint=str(folder.resolve() / CHECKPOINT),
        )
        self.trainer = JointTrainer(task, limit_s=6 * 3600)
        self.trainer.train(
            lambda one: print(
                f"common weights: {one.epoch} of {one.epochs}, {one.loss:.3f}", flush=True
            )
        )

    def __call__(self, networks: Sequence[Architecture]) -> list[float]:
        """Accuracies of networks; known ones are not evaluated again."""
        missing = [one for one in dict.fromkeys(networks) if one not in self.known]
        if missing:
            self.known |= dict(zip(missing, self.trainer.accuracies(missing), strict=True))
            self.file.write_text(
                json.dumps([[documents.to_json(k), v] for k, v in self.known.items()])
            )
        return [self.known[one] for one in networks]


@dataclass(frozen=True, eq=False)
class Task:
    """What all methods know."""

    question: SearchQuestion
    table: PriceTable
    oracle: Oracle
    points: dict[Architecture, FrontPoint | None] = field(default_factory=dict)

    @property
    def space(self) -> Space:
        """Search space."""
        return self.question.space

    @property
    def routes(self) -> MessageRoutes:
        """Topology with its routes."""
        return routes_of_question(self.question)

    def point(self, network: Architecture) -> FrontPoint | None:
        """Fastest placement; None if none fits."""
        if network not in self.points:
            self.points[network] = fastest(self.space, network, self.table, self.routes)
        return self.points[network]

    def us(self, network: Architecture) -> float:
        """Least time; infinite if nothing fits."""
        point = self.point(network)
        return np.inf if point is None else point.us


Ask = Callable[[Task, int], list[Architecture]]
"""Networks whose accuracy a method asks for, from a seed."""
