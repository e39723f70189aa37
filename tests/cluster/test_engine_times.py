"""Time of an engine by itself: measured, priced with messages and requests, and left out of stages."""

import itertools
import os
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layoutsel.cluster.distribution import Distributions
from layoutsel.cluster.engine_probing import engine_between, engine_profile
from layoutsel.cluster.engine_times import FREE, EngineProfile, EngineTimes, kept_name
from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.metrics import LATENCY, Predictor, alone
from layoutsel.cluster.placed import priced_distributions
from layoutsel.cluster.problem import ClassCosts
from layoutsel.cluster.routes import routes_of
from layoutsel.cluster.stage_times import with_stage_times
from layoutsel.cluster.statistics import NodeState, Statistics
from layoutsel.cluster.topology import Header, Link, Node, Topology
from layoutsel.documents import save
from tests.cluster.clusters import chain, cluster_of, small_clusters, star
from tests.cluster.divided import network, plan_in_atoms

ENGINE = EngineTimes(request_us=70.0, call_us=11.0, segment_us=13.0, message_us=17.0, wake_us=5.0)
BUSY = {"n1": NodeState(others_busy=0.75)}
"""The second node takes four times as long."""


def with_engine(cluster, engine=ENGINE):
    routes = cluster.routes
    return replace(cluster, routes=MessageRoutes(routes.topology, routes.statistics, engine))


def test_a_request_over_two_nodes_takes_all_times_of_the_engine():
    free = cluster_of(chain(3), star(2), statistics=Statistics(nodes=BUSY))
    ways = {
        # Both segments are called, and the nodes that send a tensor are slower at the next call.
        ("n0", "n1", "n1"): 70 + 11 + 4 * 11 + 13 + 2 * 17 + 5 + 4 * 5,
        ("n0", "n1", "n0"): 70 + 11 + 4 * 11 + 11 + 2 * 13 + 2 * 17 + 5 + 4 * 5,
        ("n1", "n1", "n1"): 70 + 4 * 11 + 2 * 17 + 4 * 5,
        ("n0", "n0", "n0"): 70 + 11,
    }
    for nodes, expected in ways.items():
        placement = dict(zip(free.graph.atoms, nodes, strict=True))
        took, without = (Predictor(one).latency_us(placement) for one in (with_engine(free), free))
        assert took - without == pytest.approx(expected)


def test_segments_have_the_time_of_their_call():
    free = cluster_of(chain(3), star(2), statistics=Statistics(nodes=BUSY))
    placement = dict(zip(free.graph.atoms, ("n0", "n1", "n0"), strict=True))
    both = [
        routes_of(Predictor(one), alone(placement))[0].segments for one in (with_engine(free), free)
    ]
    assert [one.us - other.us for one, other in zip(*both, strict=True)] == pytest.approx(
        [11, 44, 11]
    )


@settings(deadline=None, max_examples=40)
@given(cluster=small_clusters(4), seed=st.integers(0, 9))
def test_steps_of_a_message_last_as_long_as_its_price(cluster, seed):
    problem = with_engine(cluster).problem
    nodes = [cluster.nodes[(seed + i) % len(cluster.nodes)] for i in range(len(problem.nodes))]
    placement = dict(zip(cluster.graph.atoms, nodes, strict=True))
    for one in problem.cost(cluster.decisions(placement)).boundaries:
        steps = problem.resources.boundary(one.kind, one.source, one.destination, one.cost_us)
        assert sum(step.duration_us for step in steps) == pytest.approx(one.cost_us)


def test_times_between_known_waits_are_on_a_line():
    profile = EngineProfile(waits_us=(0.0, 100.0), times=(FREE, ENGINE), bare_us=3.0)
    assert profile.at(50.0) == EngineTimes(
        request_us=35.0, call_us=5.5, segment_us=6.5, message_us=8.5, wake_us=2.5
    )
    assert profile.at(1e6) == ENGINE
    assert EngineProfile().at(5.0) == FREE


def test_negative_times_are_faults():
    (fault,) = EngineTimes(call_us=-1.0).faults()
    assert fault == ("$.call_us", "-1", "0 or more")
    assert not list(ENGINE.faults())


def test_the_engine_of_other_machines_has_its_time_in_the_links(tmp_path):
    topology = Topology(
        directed=False,
        multigraph=False,
        graph=Header(schema_version=1, origin="a"),
        nodes=(Node(id="a"), Node(id="b", machine="b.json")),
        links=(Link(source="a", target="b", gbps=1.0, rtt_us=1e4),),
    )
    assert engine_between(topology) == FREE
    assert engine_profile("ray", folder=tmp_path) == EngineProfile()
    assert not list(tmp_path.iterdir())


def test_a_kept_measurement_is_read_again(tmp_path):
    held = EngineProfile(waits_us=(0.0, 10.0), times=(FREE, ENGINE), bare_us=1.0)
    save(held, tmp_path / f"{kept_name('emulated')}.json")
    assert engine_profile("emulated", folder=tmp_path) == held


def test_times_of_a_busy_machine_are_measured_again(tmp_path, monkeypatch):
    again = EngineProfile(bare_us=2.0)
    monkeypatch.setattr("layoutsel.cluster.engine_probing.probe", lambda _engine: again)
    file = tmp_path / f"{kept_name('emulated')}.json"
    for others_busy, age_s, expected in ((0.0, 1e6, 1.0), (0.5, 0.0, 1.0), (0.5, 1e4, 2.0)):
        save(EngineProfile(bare_us=1.0, others_busy=others_busy), file)
        os.utime(file, times=(time.time() - age_s,) * 2)
        assert engine_profile("emulated", folder=tmp_path).bare_us == expected


def test_the_probe_measures_an_engine(tmp_path):
    found = engine_profile("emulated", folder=tmp_path)
    assert found.bare_us > 0
    assert list(found.waits_us) == sorted(found.waits_us)
    for one in found.times:
        assert one.request_us > one.call_us > 0  # threads are handed over to, and code is called
        assert not list(one.faults())
    assert engine_profile("emulated", folder=tmp_path) == found


@pytest.mark.parametrize("bare_us", [0.0, 1e9])
def test_stages_of_this_machine_get_their_measured_times(artifact, bare_us):
    known = placed_network()
    found = with_stage_times(known, {"this": artifact.path}, bare_us)
    (before,), (after,) = known["latency"].routes, found["latency"].routes
    assert [one.node for one in after.segments] == [one.node for one in before.segments]
    assert found.engine == known.engine
    times = found.costs["this"].us
    assert times.keys() == known.costs["this"].us.keys()
    assert all(us < 1e6 for us in times.values())
    assert all(us > 0 for us in times.values()) == (bare_us == 0)
    less_us = known[LATENCY].metrics[LATENCY].predicted - found[LATENCY].metrics[LATENCY].predicted
    assert less_us == pytest.approx(1e6 * len(times) - sum(times.values()))


def placed_network() -> Distributions:
    """Stages of the small network on two nodes of this machine, each with a price of a second."""
    plan = plan_in_atoms(network())
    drawn = cluster_of(chain(len(plan.stages)), star(2))
    renamed = dict(zip(drawn.graph.atoms, (one.name for one in plan.stages), strict=True))
    tensors = tuple(
        replace(
            tensor,
            producer=None if tensor.producer is None else renamed[tensor.producer],
            uses=tuple(
                replace(use, consumer=None if use.consumer is None else renamed[use.consumer])
                for use in tensor.uses
            ),
        )
        for tensor in drawn.graph.tensors
    )
    graph = replace(
        drawn.graph,
        atoms={one.name: one.subgraphs for one in plan.stages},
        tensors=tensors,
        weight_bytes=dict.fromkeys(renamed.values(), 0.0),
        names={},
    )
    nodes = itertools.cycle(("n0", "n1"))
    return priced_distributions(
        graph,
        {"this": ClassCosts(us=dict.fromkeys(renamed.values(), 1e6))},
        {"n0": "this", "n1": "this"},
        {"this": plan},
        dict(zip(graph.atoms, nodes, strict=False)),
        MessageRoutes(star(2), None, ENGINE),
    )
