"""Clusters for tests: random ones, and one with two branches."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from hypothesis import strategies as st

from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.problem import AtomGraph, ClassCosts, Cluster, Placement
from layoutsel.cluster.statistics import Statistics
from layoutsel.cluster.topology import Header, Link, Node, Power, Topology
from layoutsel.cost.tensor import Tensor, TensorUse
from tests.planning.problems import random_parents
from tvm_passes.decision import SubgraphId

ORIGIN = "n0"


def star(
    count: int,
    *,
    gbps: float = 1.0,
    rtt_us: float = 100.0,
    memory_bytes: Sequence[float | None] = (),
    watts: float | None = 10.0,
    **link: object,
) -> Topology:
    """`count` nodes around a switch; the first is the origin."""
    sizes = [*memory_bytes, *[None] * count]
    return Topology(
        directed=False,
        multigraph=False,
        graph=Header(schema_version=1, origin=ORIGIN),
        nodes=(
            *(
                Node(
                    id=f"n{i}",
                    memory_bytes=sizes[i],
                    power_w=None if watts is None else Power(idle=1.0, busy=watts * (1 + i)),
                )
                for i in range(count)
            ),
            Node(id="sw", kind="switch"),
        ),
        links=tuple(
            Link(source=f"n{i}", target="sw", gbps=gbps, rtt_us=rtt_us, **link)
            for i in range(count)
        ),
    )


def atom_graph(parents: Sequence[Sequence[int]], rng: random.Random) -> AtomGraph:
    """Atoms over a DAG: ``parents[i]`` are the atoms that atom i reads; -1 is the model's input."""
    names = [SubgraphId(f"a{i}") for i in range(len(parents))]
    uses: dict[int, list[TensorUse]] = {i: [] for i in range(-1, len(parents))}
    for i, sources in enumerate(parents):
        for position, source in enumerate(sources):
            uses[source].append(TensorUse(consumer=names[i], input_index=position))
    results = itertools.count()
    for i in range(len(parents)):
        if not uses[i] or rng.random() < 0.1:
            uses[i].append(TensorUse(consumer=None, input_index=next(results)))
    return AtomGraph(
        atoms={name: (SubgraphId(f"{name}_conv"),) for name in names},
        tensors=tuple(
            Tensor(
                producer=None if i < 0 else names[i],
                output_index=0,
                uses=tuple(used),
                shape=(1,),
                bytes=rng.randrange(1_000, 300_000),
            )
            for i, used in uses.items()
            if used
        ),
        weight_bytes={name: float(rng.randrange(0, 2_000_000)) for name in names},
        inner_bytes={name: float(rng.randrange(0, 200_000)) for name in names},
    )


def chain(count: int) -> list[list[int]]:
    return [[i - 1] for i in range(count)]


def two_branches(length: int = 1) -> list[list[int]]:
    """A stem, two branches of `length` atoms, and a join."""
    parents = [[-1]]
    for _ in range(2):
        last = 0
        for _ in range(length):
            parents.append([last])
            last = len(parents) - 1
    parents.append([length, 2 * length])
    return parents


def costs_of(
    graph: AtomGraph, rng: random.Random, classes: Sequence[str], scale_us: float = 1000.0
) -> dict[str, ClassCosts]:
    """Times of the atoms for each class, and of the transforms between classes."""
    us = {atom: rng.uniform(0.1, 2.0) * scale_us for atom in graph.atoms}
    return {
        name: ClassCosts(
            us={atom: value * rng.uniform(0.5, 2.0) for atom, value in us.items()},
            spread_us={atom: value * 0.1 for atom, value in us.items()},
            repack_us={
                other: {
                    tensor.name: rng.choice([0.0, 20.0, 200.0])
                    for tensor in graph.tensors
                    if tensor.producer is not None
                }
                for other in classes
                if other != name
            },
            shared_spread=0.05,
        )
        for name in classes
    }


def cluster_of(
    parents: Sequence[Sequence[int]],
    topology: Topology,
    *,
    seed: int = 0,
    classes: Sequence[str] = (),
    statistics: Statistics | None = None,
) -> Cluster:
    """Random network over a topology; nodes take the `classes` in turn, by default one for all."""
    rng = random.Random(seed)
    graph = atom_graph(parents, rng)
    names = list(classes) or ["c"]
    nodes = [node.id for node in topology.computing]
    return Cluster(
        graph=graph,
        classes={node: names[i % len(names)] for i, node in enumerate(nodes)},
        costs=costs_of(graph, rng, names),
        routes=MessageRoutes(topology, statistics),
    )


def with_times(cluster: Cluster, us: float) -> Cluster:
    """The cluster where every atom takes `us` microseconds on every node."""
    costs = {
        name: replace(one, us=dict.fromkeys(one.us, us), repack_us={})
        for name, one in cluster.costs.items()
    }
    return replace(cluster, costs=costs)


@st.composite
def small_clusters(draw: st.DrawFn, most: int = 6) -> Cluster:
    """Up to `most` atoms on up to three nodes of up to three classes: brute force is quick."""
    seed = draw(st.integers(0, 2**32))
    rng = random.Random(seed)
    count, nodes = draw(st.integers(1, most)), draw(st.integers(1, 3))
    topology = star(
        nodes,
        gbps=draw(st.sampled_from([0.01, 0.1, 1.0, 100.0])),
        rtt_us=draw(st.sampled_from([0.0, 100.0, 3000.0])),
        cpu_us=draw(st.sampled_from([0.0, 30.0])),
        cpu_ns_per_byte=draw(st.sampled_from([0.0, 1.0])),
        nj_per_byte=draw(st.sampled_from([0.0, 50.0])),
        duplex=draw(st.sampled_from(["full", "half"])),
        shares=draw(st.sampled_from(["", "air"])),
    )
    parents = random_parents(count, rng, reach=draw(st.integers(1, count)))
    classes = ["x", "y", "z"][: draw(st.integers(1, 3))]
    return cluster_of(parents, topology, seed=seed, classes=classes)


def limited(cluster: Cluster, sizes: Sequence[float | None]) -> Cluster:
    """The cluster where node i has ``sizes[i]`` bytes."""
    topology = cluster.topology
    nodes = tuple(
        replace(node, memory_bytes=sizes[i]) if i < len(sizes) else node
        for i, node in enumerate(topology.nodes)
    )
    return replace(
        cluster,
        routes=MessageRoutes(replace(topology, nodes=nodes), cluster.routes.statistics),
    )


def every_placement(cluster: Cluster) -> Iterator[Placement]:
    """All placements."""
    for nodes in itertools.product(cluster.nodes, repeat=len(cluster.graph.atoms)):
        yield dict(zip(cluster.graph.atoms, nodes, strict=True))
