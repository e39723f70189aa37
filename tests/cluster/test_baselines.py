"""Baselines of the comparison, against enumeration of what they claim to find."""

import itertools

import pytest
from cluster import baselines
from topologies import link, topology

from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.metrics import Predictor, alone
from layoutsel.cluster.problem import AtomGraph, ClassCosts, Cluster
from layoutsel.cost.tensor import Tensor, TensorUse
from tvm_passes.decision import SubgraphId

ATOMS = ("a0", "a1", "a2", "a3", "a4")


def chain_of(sizes, us, *, weights=1.0, memory=None, gbps=8.0):
    """A chain of atoms over the origin, a node of its class, and two of another class."""
    ids = [SubgraphId(atom) for atom in ATOMS]
    tensors = tuple(
        Tensor(
            producer=ids[number - 1] if number else None,
            output_index=0,
            uses=(TensorUse(consumer=ids[number] if number < len(ids) else None, input_index=0),),
            shape=(1, 1, 1, size // 4),
        )
        for number, size in enumerate(sizes)
    )
    made = topology([link(name, "s", gbps=gbps) for name in "abcd"], switches="s")
    graph = AtomGraph(
        atoms={atom: (id_,) for atom, id_ in zip(ATOMS, ids, strict=True)},
        tensors=tensors,
        weight_bytes=dict.fromkeys(ATOMS, weights),
    )
    if memory is not None:
        nodes = tuple(
            type(n)(id=n.id, kind=n.kind, memory_bytes=memory if n.kind == "node" else None)
            for n in made.nodes
        )
        made = type(made)(
            directed=False, multigraph=False, graph=made.graph, nodes=nodes, links=made.links
        )
    cluster = Cluster(
        graph=graph,
        classes={"a": "slow", "b": "slow", "c": "fast", "d": "fast"},
        costs={
            "slow": ClassCosts(us=dict(zip(ATOMS, us, strict=True))),
            "fast": ClassCosts(us={atom: t / 3 for atom, t in zip(ATOMS, us, strict=True)}),
        },
        routes=MessageRoutes(made),
    )
    return Predictor(cluster)


SIZES, US = (400, 4000, 40, 400, 4, 4), (30.0, 10.0, 20.0, 5.0, 25.0)


def all_placements(predictor):
    for nodes in itertools.product(predictor.cluster.nodes, repeat=len(ATOMS)):
        yield alone(dict(zip(ATOMS, nodes, strict=True)))


def test_no_baseline_beats_all_placements_but_replication_may():
    predictor = chain_of(SIZES, US)
    most = max(baselines.throughput(predictor, mix) for mix in all_placements(predictor))
    for name, baseline in baselines.BASELINES.items():
        found = baselines.throughput(predictor, baseline(predictor))
        assert found <= most * (1 + 1e-9) or name == "replication"


def test_the_best_cut_and_the_best_node_are_found():
    predictor = chain_of(SIZES, US)
    nodes = predictor.cluster.nodes
    ones = [alone(dict.fromkeys(ATOMS, node)) for node in nodes]
    best = max(baselines.throughput(predictor, mix) for mix in ones)
    assert baselines.throughput(predictor, baselines.single(predictor)) == best
    cuts = [
        alone({atom: "a" if number < cut else node for number, atom in enumerate(ATOMS)})
        for cut in range(len(ATOMS) + 1)
        for node in nodes
    ]
    best = max(baselines.throughput(predictor, mix) for mix in cuts)
    assert baselines.throughput(predictor, baselines.one_cut(predictor)) == pytest.approx(best)


def test_replicas_share_requests_by_their_speed():
    # With links of no cost, rates add up: two of 1/90 per µs, two of 3/90.
    predictor = chain_of(SIZES, US, gbps=1e6)
    mix = baselines.replication(predictor)
    assert baselines.throughput(predictor, mix) == pytest.approx(8e6 / 90, rel=1e-3)
    shares = {share.placement["a0"]: share.weight for share in mix}
    assert shares["c"] == pytest.approx(3 * shares["b"], rel=1e-3)


@pytest.mark.parametrize("gbps", [0.08, 0.8, 8.0, 800.0])
def test_the_pipeline_has_the_least_bottleneck_of_contiguous_ones(gbps):
    predictor = chain_of(SIZES, US, gbps=gbps)
    count, nodes = len(ATOMS), predictor.cluster.nodes
    best = 0.0
    for stages in range(1, len(nodes) + 1):
        for inner in itertools.combinations(range(1, count), stages - 1):
            for order in itertools.permutations(nodes, stages):
                placement = baselines.contiguous(predictor.cluster, (*inner, count), order)
                best = max(best, baselines.throughput(predictor, alone(placement)))
    found = baselines.throughput(predictor, baselines.pipeline(predictor))
    assert found >= 0.9 * best
    assert found <= best * (1 + 1e-9)


def test_what_does_not_fit_is_no_baseline():
    # Each node has room for two atoms with their tensors.
    predictor = chain_of((4,) * 6, US, weights=1000.0, memory=2100.0)
    assert baselines.single(predictor) is None
    assert baselines.replication(predictor) is None
    assert baselines.one_cut(predictor) is None
    for name in ("equal split", "greedy"):
        mix = baselines.BASELINES[name](predictor)
        assert mix is not None
        assert baselines.fits(predictor, mix)
