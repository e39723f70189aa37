"""Methods of the joint bench: networks that they ask for, and the placements of those. All know all predicted times."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import optuna

from layoutsel import documents
from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.statistics import NodeState, Statistics
from layoutsel.cluster.topology import Header, Link, Node, Topology
from layoutsel.search.default_spaces import CHAINS
from layoutsel.search.dominance import non_dominated
from layoutsel.search.fastest import fastest, only
from layoutsel.search.front import FrontPoint, Scores
from layoutsel.search.joint.asking import AskedNetworks
from layoutsel.search.joint.question import JOINT
from layoutsel.search.joint.search import CHECKPOINT
from layoutsel.search.joint.tasks import SharedTraining, TrainingSchedule
from layoutsel.search.joint.trainer import JointTrainer
from layoutsel.search.label_setting import front_within
from layoutsel.search.parts import parts_of
from layoutsel.search.placing import cluster_of, placed, placed_us
from layoutsel.search.prices import PriceTable
from layoutsel.search.product_graph import ProductGraph, product_graph
from layoutsel.search.run_folder import RunFolder, SearchQuestion, routes_of_question
from layoutsel.search.space import Architecture, Space

OURS = "joint"
QUERIES, EPOCHS = 60, 40
CHANCE = 0.1
"""Accuracy that counts as nothing."""
LAYERS = ("conv3", "conv5", "separable3", "separable5")
"""Operations of hand-made networks, by preference."""


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
Place = Callable[[Task, Architecture], float]
"""Time of a network with the placement of a method; infinite if it does not fit."""


def surrogate(
    task: Task, seed: int, make: Callable[[RunFolder], AskedNetworks], asked: SearchQuestion
) -> list[Architecture]:
    """Ask by exact fronts of the surrogate."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.begin(Path(folder) / "run", replace(asked, seed=seed), Path(folder))
        found = make(run)
        while chosen := found.next():
            found.add(chosen, task.oracle(chosen))
        return list(found.accuracies)


def joint(task: Task, seed: int) -> list[Architecture]:
    return surrogate(task, seed, lambda run: AskedNetworks(run, task.table), task.question)


def search_then_split(task: Task, seed: int) -> list[Architecture]:
    """Search for one node without links and limits of memory; placements come afterwards."""
    nodes = tuple(replace(one, memory_bytes=None) for one in task.question.topology.nodes[:1])
    alone = replace(task.question, topology=replace(task.question.topology, nodes=nodes, links=()))
    alone = replace(alone, statistics=Statistics())
    return surrogate(task, seed, lambda run: AskedNetworks(run, task.table), alone)


def handmade(task: Task) -> Architecture:
    """Convolutions with a kernel of 3 and the larger widths that fit."""
    for operation, widest in itertools.product(LAYERS, (True, False)):
        network = Architecture(
            channels=tuple((max if widest else min)(cell.channels) for cell in task.space.cells),
            operations=tuple((operation,) for _ in task.space.cells),
        )
        if task.point(network) is not None:
            return network
    raise AssertionError("no hand-made network fits")


class FixedPlacement(AskedNetworks):
    """Networks on nodes that were chosen before."""

    def __init__(self, run: RunFolder, table: PriceTable, nodes: Sequence[int]) -> None:
        super().__init__(run, table)
        self.nodes = nodes
        self.graph = fixed(self.graph, nodes)
        self._points.clear()

    def _fastest(self, network: Architecture) -> FrontPoint | None:
        graph = product_graph(only(self.space, network), self.table, self._routes)
        front = front_within(fixed(graph, self.nodes), Scores(single=()))
        return None if front is None else front.points[0]


def fixed(graph: ProductGraph, nodes: Sequence[int]) -> ProductGraph:
    """Copy whose layers run on given nodes alone."""
    layers = []
    for layer, node in zip(graph.layers, nodes, strict=True):
        compute = np.full_like(layer.compute_us, np.inf)
        compute[..., node] = layer.compute_us[..., node]
        layers.append(replace(layer, compute_us=compute))
    return replace(graph, layers=tuple(layers))


def nodes_of(task: Task, network: Architecture) -> list[int]:
    """Number of the node of each layer in the fastest placement of a network."""
    point = task.point(network)
    assert point is not None
    graph = product_graph(task.space, task.table, task.routes)
    names = ["stem", *(f"{cell.name}.0-1" for cell in task.space.cells), "head"]
    return [graph.nodes.index(point.nodes[name]) for name in names]


def split_then_search(task: Task, seed: int) -> list[Architecture]:
    """Search with the best placement of the hand-made network."""
    nodes = nodes_of(task, handmade(task))
    return surrogate(task, seed, lambda run: FixedPlacement(run, task.table, nodes), task.question)


def feasible(task: Task, random: np.random.Generator) -> Iterator[Architecture]:
    """Yield different random networks that fit."""
    seen: set[Architecture] = set()
    while True:
        network = task.space.draw(random)
        if network not in seen and task.point(network) is not None:
            seen.add(network)
            yield network


def random_networks(task: Task, seed: int) -> list[Architecture]:
    return list(itertools.islice(feasible(task, np.random.default_rng(seed)), QUERIES))


def local(task: Task, seed: int) -> list[Architecture]:
    """Neighbours of non-dominated networks, one choice changed; a tenth at random (Pareto local search)."""
    random = np.random.default_rng(seed)
    drawn = feasible(task, random)
    known = dict.fromkeys(itertools.islice(drawn, QUERIES // 10))
    while len(known) < QUERIES:
        networks = list(known)
        us, accuracy = np.array([task.us(one) for one in networks]), np.array(task.oracle(networks))
        front = non_dominated(us, accuracy, np.zeros((len(us), 0)))
        fresh = [one for i in front for one in neighbours(task, networks[i]) if one not in known]
        chosen = (
            fresh[random.integers(len(fresh))]
            if fresh
            else next(one for one in drawn if one not in known)
        )
        if task.point(chosen) is not None:
            known[chosen] = None
    return list(known)


def neighbours(task: Task, network: Architecture) -> Iterator[Architecture]:
    for index, cell in enumerate(task.space.cells):
        for operation, channels in itertools.product(cell.operations, cell.channels):
            operations, widths = list(network.operations), list(network.channels)
            operations[index], widths[index] = (operation,), channels
            other = Architecture(channels=tuple(widths), operations=tuple(operations))
            if other != network and is_legal(task.space, other):
                yield other


def is_legal(space: Space, network: Architecture) -> bool:
    reads = (space.stem_channels, *network.channels)
    return all(
        operation in space.offered(index, reads[index], network.channels[index])[0]
        for index, (operation,) in enumerate(network.operations)
    )


def sampled(sampler: Callable[[int], optuna.samplers.BaseSampler]) -> Ask:
    """Ask by a sampler of optuna; illegal networks and those that do not fit cost no query."""

    def ask(task: Task, seed: int) -> list[Architecture]:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler(seed))
        known: dict[Architecture, None] = {}
        for _ in range(40 * QUERIES):
            if len(known) >= QUERIES:
                break
            trial = study.ask()
            operations, widths = [], []
            for cell in task.space.cells:
                operations.append(
                    (trial.suggest_categorical(f"{cell.name} operation", cell.operations),)
                )
                widths.append(trial.suggest_categorical(f"{cell.name} channels", cell.channels))
            network = Architecture(channels=tuple(widths), operations=tuple(operations))
            us = task.us(network) if is_legal(task.space, network) else np.inf
            if np.isinf(us):
                study.tell(trial, [1e7, 0.0])
                continue
            known[network] = None
            study.tell(trial, [us, task.oracle([network])[0]])
        return list(known)

    return ask


def exact(task: Task, network: Architecture) -> float:
    return task.us(network)


def placements(task: Task, network: Architecture, options: Iterator[Sequence[str]]) -> float:
    """Least time of some placements that keep the limits of memory."""
    parts = parts_of(task.space, network)
    cluster = cluster_of(parts, task.table, task.routes)
    best = np.inf
    for nodes in options:
        held: dict[str, float] = {}
        for part, node in zip(parts.parts, nodes, strict=True):
            held[node] = held.get(node, 0.0) + part.signature.weight_bytes
        limits = {one.id: one.memory_bytes for one in task.question.topology.nodes}
        if all((limits[node] or np.inf) >= size for node, size in held.items()):
            chosen = dict(zip((part.name for part in parts.parts), nodes, strict=True))
            best = min(best, placed_us(cluster, placed(parts, chosen)))
    return best


def one_device(task: Task, network: Architecture) -> float:
    count = len(parts_of(task.space, network).parts)
    return placements(task, network, ([node.id] * count for node in task.question.topology.nodes))


def one_split(task: Task, network: Architecture) -> float:
    """All parts up to a cut on the first node, and the others on another one."""
    count, (first, *others) = (
        len(parts_of(task.space, network).parts),
        [one.id for one in task.question.topology.nodes],
    )
    pairs = ((cut, other) for cut in range(count + 1) for other in others)
    return placements(
        task, network, ([first] * cut + [other] * (count - cut) for cut, other in pairs)
    )


def equal_split(task: Task, network: Architecture) -> float:
    """Equally many parts on each node, in the order of the nodes."""
    count, nodes = (
        len(parts_of(task.space, network).parts),
        [one.id for one in task.question.topology.nodes],
    )
    return placements(task, network, iter([[nodes[i * len(nodes) // count] for i in range(count)]]))


METHODS: dict[str, tuple[Ask, Place]] = {
    OURS: (joint, exact),
    "joint, one split": (joint, one_split),
    "joint, equal split": (joint, equal_split),
    "joint, one device": (joint, one_device),
    "search, then split": (search_then_split, exact),
    "split, then search": (split_then_search, exact),
    "random": (random_networks, exact),
    "local search": (local, exact),
    "NSGA-II": (
        sampled(lambda seed: optuna.samplers.NSGAIISampler(population_size=12, seed=seed)),
        exact,
    ),
    "TPE": (sampled(lambda seed: optuna.samplers.TPESampler(multivariate=True, seed=seed)), exact),
    "hand-made network": (lambda task, _seed: [handmade(task)], exact),
}
"""Networks that are asked and placements, by method."""
