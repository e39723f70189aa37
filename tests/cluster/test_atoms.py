"""Atoms: valid stages, few enough, and as good to divide as single sub-graphs."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from layoutsel.cluster.atoms import LEAST_ATOMS, MOST_ATOMS, cut_atoms
from layoutsel.compile.generic import offered
from layoutsel.compile.make_plan import priced_problem
from layoutsel.compile.session import Session
from layoutsel.cost.tensor import Tensor, TensorUse
from layoutsel.planning.stages import make_stages
from tests.cluster.divisions import Cluster, Cuts
from tests.tiers import tiered
from tvm_passes.decision import SubgraphId

LOSS = 1.02
"""Largest allowed ratio of the best division at candidate cuts to that at any cut."""
CLUSTERS = [
    Cluster(speeds, us_per_byte)
    for speeds in ((1, 1), (1, 1, 1, 1), (1, 4), (4, 1, 2), (1,) * 8)
    for us_per_byte in (0.0, 0.01, 0.3, 10.0)
]


def network(parents, work, nbytes):
    """Work by sub-graph and tensors of a DAG; -1 is the model's input, and what nobody reads is a result."""
    ids = [SubgraphId(f"s{number}") for number in range(len(parents))]
    tensors = []
    for number, id_ in enumerate(ids):
        readers = [other for other, sources in enumerate(parents) if number in sources]
        uses = [TensorUse(consumer=ids[other], input_index=0) for other in readers]
        uses = uses or [TensorUse(consumer=None, input_index=number)]
        tensors.append(
            Tensor(
                producer=id_,
                output_index=0,
                uses=tuple(uses),
                shape=(nbytes[number],),
                bytes=nbytes[number],
            )
        )
    return dict(zip(ids, map(float, work), strict=True)), tensors


def chain(work, nbytes):
    return network([[number - 1] for number in range(len(work))], work, nbytes)


def check_stages(atoms, tensors):
    """Reject atoms that are no stages in this order."""
    reads: dict = {id_: [] for held in atoms.values() for id_ in held}
    for tensor in tensors:
        for use in tensor.uses:
            if use.consumer is not None:
                reads[use.consumer].append(tensor.name)
    results = [t.name for t in tensors if any(use.consumer is None for use in t.uses)]
    make_stages(atoms, reads, results)


@st.composite
def networks(draw, most=9):
    """Sub-graphs with much, little and no work, and tensors of a few sizes, so that many are equal."""
    count = draw(st.integers(1, most))
    earlier = [
        st.sets(st.integers(-1, number - 1), min_size=1, max_size=3) for number in range(count)
    ]
    parents = [sorted(draw(one)) for one in earlier]
    work = [draw(st.sampled_from([0.0, 0.1, 0.3, 100.0, 250.0])) for _ in range(count)]
    nbytes = [draw(st.sampled_from([100, 200, 1000, 1001])) for _ in range(count)]
    return network(parents, work, nbytes)


@given(networks(), st.integers(1, 9))
def test_atoms_are_stages_and_few_enough(drawn, most):
    work, tensors = drawn
    atoms = cut_atoms(work, tensors, most=most)
    assert sorted(id_ for held in atoms.values() for id_ in held) == sorted(work)
    assert len(atoms) <= most
    check_stages(atoms, tensors)


@given(networks(), st.sampled_from(CLUSTERS))
def test_dominated_cuts_lose_no_latency(drawn, cluster):
    work, tensors = drawn
    cuts = Cuts(work, tensors)
    atoms = cut_atoms(work, tensors, overhead=inf)
    _, got = cuts.best(cluster, cuts.within(atoms.values()))
    _, best = cuts.best(cluster)
    assert got <= LOSS * best + 1e-6


def test_dominated_cuts_hardly_ever_lose_throughput():
    """A cut of fewer bytes may divide the sending and receiving worse among the nodes."""
    losses = []

    # A fixed seed: about one random network in 3,000 loses, at most 19 % in 18,000 of them.
    @settings(derandomize=True, max_examples=500, deadline=None, phases=[Phase.generate])
    @given(networks(), st.sampled_from(CLUSTERS))
    def collect(drawn, cluster):
        work, tensors = drawn
        cuts = Cuts(work, tensors)
        atoms = cut_atoms(work, tensors, overhead=inf)
        got, _ = cuts.best(cluster, cuts.within(atoms.values()))
        best, _ = cuts.best(cluster)
        losses.append(got / max(best, 1e-6) if best else 1.0)

    collect()
    assert len(losses) >= 500
    assert sum(loss > LOSS for loss in losses) <= 1
    assert max(losses) < 1.25


def test_a_cut_beside_a_smaller_one_is_dropped():
    # The cut after s1 is the smallest; s1 and s2 are no work. The one after s0 remains: s1 is work.
    atoms = cut_atoms(*chain([500, 0, 0, 500], [80, 40, 80, 1]))
    assert list(atoms.values()) == [("s0", "s1"), ("s2", "s3")]
    atoms = cut_atoms(*chain([500, 300, 0, 500], [80, 40, 80, 1]))
    assert list(atoms.values()) == [("s0",), ("s1",), ("s2", "s3")]


def test_a_skip_connection_crosses_with_the_rest():
    # s1 and s2 bring no fewer bytes across while the skip connection crosses as well.
    work, tensors = network([[-1], [0], [1], [0, 2], [3]], [300, 0, 0, 300, 300], [100] * 5)
    assert list(cut_atoms(work, tensors).values()) == [("s0",), ("s1", "s2", "s3"), ("s4",)]


def test_branches_stay_apart():
    parents = [[-1], [0], [1], [0], [3], [2, 4]]
    work, tensors = network(parents, [100] * 5 + [0], [50] * 6)
    atoms = list(cut_atoms(work, tensors, most=4).values())
    home = {id_: number for number, held in enumerate(atoms) for id_ in held}
    assert {home["s1"], home["s2"]}.isdisjoint({home["s3"], home["s4"]})
    assert len(atoms) == 4


def test_tiny_parallel_readers_become_one():
    parents = [[-1], [0], [0], [0], [1, 2, 3], [4]]
    work, tensors = network(parents, [400, 0.1, 0.1, 0.1, 400, 400], [100] * 6)
    assert ("s1", "s2", "s3") in {held[:3] for held in cut_atoms(work, tensors).values()} or (
        len(cut_atoms(work, tensors)) == 3
    )


def test_a_node_that_runs_all_atoms_loses_little():
    small, large = (cut_atoms(*chain([us] * 40, [100] * 40)) for us in (10, 1000))
    assert (len(small), len(large)) == (LEAST_ATOMS, 40)
    # A concatenation that is computed with its operands needs no copies.
    parents = [[-1], [0], [0], [1, 2], *([number] for number in range(3, 12))]
    work, tensors = network(parents, [1000] * 13, [1_200_000] * 13)
    assert len(cut_atoms(work, tensors)) == 13
    atoms = cut_atoms(work, tensors, joins={"s1.0": "s3", "s2.0": "s3"})
    assert ("s1", "s2", "s3") in {held[:3] for held in atoms.values()}


@pytest.mark.parametrize("most", [1, 2])
def test_parts_without_a_common_tensor_can_be_joined(most):
    work, tensors = network([[-1]] * 4, [1] * 4, [1] * 4)
    atoms = cut_atoms(work, tensors, most=most)
    assert len(atoms) == most


ZOO = [
    "light:squeezenet",
    "light:shufflenet",
    "light:resnet50",
    "light:inception_v1",
    "light:densenet121",
    "light:vgg19",
    "arch:mobilenet_v2",
    "arch:efficientnet_b0",
    "arch:unet",
    "arch:yolo_tiny",
    "arch:vit_small_16",
    "arch:bert_base_6l",
    "arch:mixer_s16",
]
MACHINE = Path(__file__).parents[2] / "bench" / "machines" / "xeon_8380_a10.json"
"""Peak rates to compute times from, equal on every machine that tests."""
LINKS = (0.0, 0.0008, 0.008, 0.08)
"""None, and 10, 1 and 0.1 Gbit/s, microseconds per byte."""


@pytest.mark.parametrize("model", tiered(ZOO, ["light:squeezenet", "arch:mobilenet_v2"]))
def test_the_best_division_of_a_network_needs_no_other_cuts(model):
    session = Session.open(model, units=["cpu"], machine=MACHINE, calibrate=False)
    problem = priced_problem(offered(session), "roofline")
    work = {node.id: min(option.cost_us for option in node.options) for node in problem.nodes}
    atoms = cut_atoms(work, session.graph.tensors, overhead=inf)
    assert len(atoms) <= MOST_ATOMS
    cuts = Cuts(work, session.graph.tensors)
    allowed = cuts.within(atoms.values())
    for speeds in ((1,) * 2, (1,) * 4, (1,) * 8, (1, 4), (4, 1, 2)):
        for us_per_byte in LINKS:
            cluster = Cluster(speeds, us_per_byte)
            for got, best in zip(cuts.best(cluster, allowed), cuts.best(cluster), strict=True):
                assert got <= LOSS * best, cluster
