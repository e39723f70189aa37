"""Distributions as files: complete, checked, and enough to plan again without the model."""

import json
import random
from dataclasses import replace

import pytest

from layoutsel.cluster.building import build
from layoutsel.cluster.distribution import Distributions, Target
from layoutsel.cluster.explain import elsewhere
from layoutsel.cluster.metrics import ENERGY, LATENCY, METRICS, THROUGHPUT
from layoutsel.cluster.redistributing import distributions_of, redistribute
from layoutsel.cluster.statistics import NodeState, Statistics
from layoutsel.documents import DocumentError
from layoutsel.planning.check_fits import PlanMismatch
from layoutsel.planning.new_plan import make_plan
from layoutsel.planning.plan import Plan
from layoutsel.planning.problem import ProblemError
from layoutsel.planning.solve import solve
from tests.cluster.clusters import cluster_of, star, two_branches
from tests.planning.problems import graph_problem
from tests.small_models import convolution
from tvm_passes.errors import LayoutselError


def whole_plan(cluster) -> Plan:
    """A plan of the network whose stages are the cluster's atoms."""
    problem = graph_problem(two_branches(2), random.Random(0))
    made = make_plan(problem, solve(problem), strategy="joint", machine="m", versions={})
    ids = [one.id for one in made.subgraphs]
    return made.in_stages({atom: [id_] for atom, id_ in zip(cluster.graph.atoms, ids, strict=True)})


@pytest.fixture(scope="module")
def found() -> Distributions:
    cluster = cluster_of(two_branches(2), star(3, gbps=10.0), classes=["x", "y"])
    return distributions_of(
        cluster.graph,
        cluster.costs,
        cluster.classes,
        {name: whole_plan(cluster) for name in cluster.costs},
        cluster.topology,
        Statistics(),
        [*(Target(name=name) for name in METRICS), Target(name=ENERGY, limits={LATENCY: 1e6})],
        time_limit_s=2.0,
    )


def test_distributions_survive_their_file(found, tmp_path):
    found.save(tmp_path / "d.json")
    assert Distributions.load(tmp_path / "d.json") == found


def test_a_distribution_is_found_by_name_or_with_its_limits(found):
    assert found[ENERGY].target.limits == {}
    assert found["energy (latency 1000 ms)"].target.limits == {LATENCY: 1e6}
    with pytest.raises(LayoutselError, match="'speed'; expected one of latency, throughput"):
        found["speed"]


def test_the_matrix_has_all_metrics_of_all_targets(found):
    lines = found.matrix().splitlines()
    assert lines[0].split() == ["target", "value", *METRICS]
    assert len(lines) == 1 + len(found.distributions) + 1
    assert all(line.count("*") == 1 for line in lines[1:-1])
    assert lines[-1].startswith("all")
    assert "-" not in lines[-1].split()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (LATENCY, "none found in time within the memories"),
        ("energy (latency 1000 ms)", "none found in time within the memories and limits"),
    ],
)
def test_an_explanation_says_why_no_other_node_is_given(found, name, reason):
    one = found[name]
    segment = replace(one.routes[0].segments[0], elsewhere={})
    assert elsewhere(found, replace(one, routes=one.routes[:1]), segment) == reason
    both = replace(one, routes=(one.routes[0], one.routes[0]))
    assert elsewhere(found, both, segment) == "not tried with several routes"


def test_other_models_are_refused(found, tmp_path):
    with pytest.raises(PlanMismatch, match="of another model"):
        build(convolution(), found, tmp_path / "artifacts")


FAULTS = [
    (("distributions", 0, "routes", 0, "weight"), 0.5, r"routes: got weights that add up to 0\.5"),
    (("distributions", 0, "routes", 0, "segments", 0, "node"), "lost", r"node: got 'lost'"),
    (("distributions", 0, "routes", 0, "segments", 0, "inputs"), ["a9.0"], "inputs: got 'a9.0'"),
    (("distributions", 0, "routes", 0, "segments", 0, "atoms"), [], "'a0' is missing, unknown or"),
    (("distributions", 0, "target", "name"), "speed", r"target\.name: got 'speed'"),
    (("distributions", 0, "without", "n9"), [], r"without\.n9: got an unknown node"),
    (("classes", "n1"), "z", r"\$\.classes\.n1: got 'z'; expected one of x, y"),
    (("topology", "links", 0, "gbps"), 0.0, r"\$\.topology\.links\[0\]\.gbps: got 0"),
    (("statistics", "nodes"), {"n9": {}}, r"\$\.statistics\.nodes\.n9: got an unknown node"),
    (("schema_version",), 9, r"\$\.schema_version: got 9"),
]


@pytest.mark.parametrize(("path", "value", "message"), FAULTS)
def test_inconsistent_distributions_are_refused(found, tmp_path, path, value, message):
    found.save(tmp_path / "d.json")
    document = json.loads((tmp_path / "d.json").read_text())
    *parents, last = path
    place = document
    for key in parents:
        place = place[key]
    place[last] = value
    with pytest.raises(DocumentError, match=message):
        Distributions.read(document)


def test_a_changed_state_is_planned_again_without_the_model(found):
    again = redistribute(found, Statistics(), time_limit_s=2.0, spares=False)
    for one, other in zip(found.distributions, again.distributions, strict=True):
        mine, theirs = (d.metrics[d.target.name].predicted for d in (one, other))
        assert theirs == pytest.approx(mine, rel=0.05)  # as far as time allows
    busy = Statistics(nodes={"n1": NodeState(others_busy=0.9)})
    slow = redistribute(found, busy, targets=[Target(name=THROUGHPUT)], spares=False)
    before, after = (d[THROUGHPUT].metrics[THROUGHPUT].predicted for d in (found, slow))
    assert after < before
    assert slow.statistics == busy


def test_a_lost_node_is_left_out(found):
    busy = Statistics(nodes={"n1": NodeState(others_busy=0.9)})
    left = redistribute(found, busy, lost=["n1"], targets=[Target(name=LATENCY)])
    assert "n1" not in left[LATENCY].nodes
    assert sorted(left.classes) == ["n0", "n2"]


def test_distributions_without_times_cannot_be_planned_again(found):
    with pytest.raises(ProblemError, match="lack the times of their atoms"):
        redistribute(replace(found, graph=None), Statistics())
