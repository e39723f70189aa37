"""Deployed networks: callables and streams, traces, statistics, changes without a pause, bad input."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from divided import (
    CLASS,
    ORIGIN,
    PATIENT,
    distribution,
    distributions,
    image,
    network,
    plan_in_atoms,
    until,
)
from faulty import Faulty

import layoutsel
from layoutsel.cluster.deploying import deploy
from layoutsel.cluster.local_engine import LocalEngine
from layoutsel.cluster.node_queues import ClusterLimits
from layoutsel.cluster.watch import Replacement, segment_key
from layoutsel.errors import InputError
from tvm_passes.errors import LayoutselError

NODES = ("edge", "a", "b")
EDGE, A, B = (4 * (node,) for node in NODES)
PIPELINE = ("a", "a", "b", "edge")
LIMITS = ClusterLimits(**PATIENT)


@pytest.fixture(scope="module")
def plan():
    return plan_in_atoms(network())


@pytest.fixture(scope="module")
def artifacts(artifact):
    return {CLASS: artifact.path}


@pytest.fixture
def document(plan):
    return distributions(plan, distribution(plan.stages, {PIPELINE: 1}, {"a": B}), NODES)


@pytest.fixture
def deployed(document, artifacts):
    with deploy(document, "latency", artifacts, limits=LIMITS) as found:
        yield found


def test_it_is_called_like_a_compiled_model(deployed, compiled):
    np.testing.assert_array_equal(deployed(image(1)), compiled(image(1)))
    got = deployed(x=image(2))
    np.testing.assert_array_equal(got, compiled(image(2)))
    assert got.flags.writeable
    with pytest.raises(InputError, match="input 'x': got float64"):
        deployed(image().astype(np.float64))


def test_a_stream_takes_no_more_than_it_has_places_for(document, artifacts, compiled):
    taken = itertools.count()

    def requests():
        for seed in range(40):
            next(taken)
            yield image(seed) if seed % 2 else {"x": image(seed)}

    with deploy(document, "latency", artifacts, limits=replace(LIMITS, in_flight=3)) as deployed:
        for seed, result in enumerate(deployed.stream(requests())):
            assert taken.__reduce__()[1][0] <= seed + 1 + 3
            np.testing.assert_array_equal(result, compiled(image(seed)))
        assert seed == 39


def test_a_trace_has_a_row_for_each_node_and_link(deployed, tmp_path):
    list(deployed.stream(image(seed) for seed in range(3)))
    deployed.save_trace(tmp_path / "t.json")
    entries = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    rows = {one["tid"]: one["args"]["name"] for one in entries if one["name"] == "thread_name"}
    assert set(rows.values()) == {
        "requests",
        *(f"node {node}" for node in NODES),
        *(f"link {a} → {b}" for a, b in (("edge", "a"), ("a", "b"), ("a", "edge"), ("b", "edge"))),
    }
    runs = [one for one in entries if one["ph"] == "X"]
    names = {(rows[one["tid"]], one["name"]) for one in runs}
    assert {("node a", "s0"), ("node b", "s1"), ("node edge", "s2")} <= names
    assert len([one for one in runs if one["cat"] == "segment"]) == 9
    assert all(one["ts"] >= 0 and one["dur"] >= 0 for one in runs)
    (request,) = (one for one in runs if one["name"] == "request 0")
    inside = [one for one in runs if one["args"]["request"] == 0]
    assert max(one["ts"] + one["dur"] for one in inside) <= request["ts"] + request["dur"] + 1


def test_statistics_are_those_of_the_runs(deployed, document):
    list(deployed.stream(image(seed) for seed in range(20)))
    found = deployed.statistics()
    route = document.distributions[0].routes[0]
    assert set(found.segments) == {segment_key(one) for one in route.segments}
    assert all(one.us > 0 and one.runs == 20 for one in found.segments.values())
    assert found.requests.p50_us <= found.requests.p95_us <= found.requests.p99_us
    assert found.nodes[ORIGIN].free_bytes > 0


def test_a_new_epoch_is_tried_before_it_begins(deployed, compiled, plan):
    assert deployed.switch(distribution(plan.stages, {A: 0.5, B: 0.5})) == 1
    np.testing.assert_array_equal(deployed(image()), compiled(image()))
    assert {event.epoch for event in deployed.timeline.events if hasattr(event, "epoch")} == {0, 1}


def test_a_wrong_route_never_begins(document, artifacts, plan, compiled, tmp_path):
    """A machine class whose artifact is of another model."""
    wrong = network()
    wrong.graph.initializer[0].raw_data = np.ones((8, 8, 3, 3), np.float32).tobytes()
    file = layoutsel.compile_plan(wrong, plan_in_atoms(wrong)).save(tmp_path / "wrong.so")
    document = replace(document, classes={**document.classes, "b": "wrong"})
    files = {**artifacts, "wrong": file}
    start = replace(document, distributions=(distribution(plan.stages, {A: 1}),))
    with deploy(start, "latency", files, limits=LIMITS) as deployed:
        with pytest.raises(LayoutselError, match="the route over b gives another result"):
            deployed.switch(distribution(plan.stages, {B: 1}))
        np.testing.assert_array_equal(deployed(image()), compiled(image()))
        assert deployed.controller.epoch.number == 0


def test_a_device_behind_a_gateway_is_refused_before_ray_begins(document, artifacts):
    """Its engine has no part in a cluster of Ray; threads of this process stand for any node."""
    gateway = {"b": {"engine": "tvm-rpc", "via": ORIGIN}}
    nodes = tuple(replace(one, **gateway.get(one.id, {})) for one in document.topology.nodes)
    behind = replace(document, topology=replace(document.topology, nodes=nodes))
    with pytest.raises(LayoutselError, match="node 'b' behind 'edge': got the engine 'tvm-rpc'"):
        deploy(behind, "latency", artifacts, engine="ray")
    with deploy(behind, "latency", artifacts, limits=LIMITS) as deployed:
        assert deployed(image()).shape == image().shape


def test_replanning_changes_the_distribution(document, artifacts, compiled, plan, monkeypatch):
    monkeypatch.setattr("layoutsel.cluster.deployed_network.SNAPSHOT_S", 0.05)
    better = distribution(plan.stages, {EDGE: 1})
    with deploy(document, "latency", artifacts, limits=LIMITS) as deployed:
        propose = lambda _now: (  # noqa: E731
            Replacement(distribution=better, gain=0.2, sigma=0.02)
            if deployed.controller.epoch.number == 0
            else None
        )
        deployed.watch(propose)

        def has_begun() -> bool:
            np.testing.assert_array_equal(deployed(image()), compiled(image()))
            return deployed.controller.epoch.number == 1

        until(has_begun)
        assert deployed.counts["failures"] == 0


def test_a_lost_node_at_the_start_is_avoided(document, artifacts, compiled):
    engine = Faulty(LocalEngine(dict.fromkeys(NODES, 1)))
    engine.dead.add("a")
    with deploy(document, "latency", artifacts, engine=engine, limits=LIMITS) as deployed:
        assert deployed.controller.quarantined == {"a"}
        np.testing.assert_array_equal(deployed(image()), compiled(image()))


def test_the_origin_goes_on_alone_if_asked_to(document, artifacts, compiled):
    engine = Faulty(LocalEngine(dict.fromkeys(NODES, 1)))
    engine.dead.update(("a", "b"))
    limits = replace(LIMITS, stranded_s=0.2)
    with deploy(
        document, "latency", artifacts, engine=engine, limits=LIMITS, fallback="local"
    ) as deployed:
        np.testing.assert_array_equal(deployed(image()), compiled(image()))
        assert deployed.counts["fallbacks"] == 1
    engine = Faulty(LocalEngine(dict.fromkeys(NODES, 1)))
    engine.dead.update(("a", "b"))
    with (
        deploy(document, "latency", artifacts, engine=engine, limits=limits) as deployed,
        pytest.raises(LayoutselError, match="no route is left: a, b lost"),
    ):
        deployed(image())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "energy"}, r"no distribution for the target 'energy'; expected one of latency"),
        ({"engine": "mpi"}, "engine 'mpi': expected one of local, emulated, ray"),
        ({"fallback": "gpu"}, "fallback 'gpu': expected 'local' or None"),
        ({"artifacts": {}}, "no artifact for the machine class 'this'"),
    ],
)
def test_bad_arguments_are_one_error(document, artifacts, change, message):
    arguments = {"target": "latency", "artifacts": artifacts, **change}
    with pytest.raises(LayoutselError, match=message):
        deploy(document, **arguments)
