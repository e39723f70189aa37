"""From a model to running distributions and back: planned, compiled, deployed, observed, planned again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from divided import PATIENT, network
from small_models import image

import layoutsel
from layoutsel import cluster
from layoutsel.cluster.node_queues import ClusterLimits
from layoutsel.cluster.replanning import Replanner
from layoutsel.cluster.statistics import LinkState, NodeState, Statistics
from layoutsel.cluster.topology import Header, Link, Node, Topology

NODES = ("edge", "a", "b")


@pytest.fixture(scope="module")
def found():
    topology = Topology(
        directed=False,
        multigraph=False,
        graph=Header(schema_version=1, origin="edge"),
        nodes=tuple(Node(id=node, threads=1) for node in NODES),
        links=tuple(
            Link(source=one, target=other, gbps=1000, rtt_us=0.1)
            for one, other in (("edge", "a"), ("edge", "b"), ("a", "b"))
        ),
    )
    return cluster.distribute(
        network(), topology, targets=["latency", "throughput"], units=["cpu"], cost="roofline"
    )


@pytest.fixture(scope="module")
def artifacts(found, tmp_path_factory):
    folder = tmp_path_factory.mktemp("classes")
    return {
        name: layoutsel.compile_plan(network(), plan).save(folder / f"{index}.so")
        for index, (name, plan) in enumerate(found.plans.items())
    }


@pytest.mark.parametrize("target", ["latency", "throughput"])
def test_every_distribution_gives_the_results_of_the_whole(found, artifacts, target, tmp_path):
    found.save(tmp_path / "d.json")
    read = cluster.Distributions.load(tmp_path / "d.json")
    whole = layoutsel.load(artifacts[read.classes["edge"]])
    limits = ClusterLimits(**PATIENT)
    with cluster.deploy(read, target, artifacts, limits=limits) as model:
        for seed, result in enumerate(model.stream(image(seed) for seed in range(12))):
            np.testing.assert_allclose(result, whole(image(seed)), rtol=1e-5, atol=1e-6)
        assert seed == 11
        for node in read[target].without:
            model.controller.exclude([node], "a test")
            np.testing.assert_allclose(model(image(1)), whole(image(1)), rtol=1e-5, atol=1e-6)
        model.statistics().check(read.topology)


class TestReplanning:
    def test_nothing_gains_in_the_same_state(self, found):
        proposal = Replanner(found, lambda: found["throughput"])(Statistics())
        assert proposal.gain == pytest.approx(0, abs=0.02)

    def test_a_busy_node_is_left(self, found):
        """Two of three nodes are left, or a little more with the rest of the busy one."""
        busy = Statistics(nodes={"a": NodeState(others_busy=0.95)})
        proposal = Replanner(found, lambda: found["throughput"])(busy)
        assert proposal.gain > 0.3
        assert proposal.is_clear
        share = sum(
            route.weight
            for route in proposal.distribution.routes
            if any(one.node == "a" for one in route.segments)
        )
        assert share < 0.2

    def test_a_slow_link_is_a_clear_gain_though_times_are_uncertain(self, found):
        """Errors of times that both distributions have in common say nothing about the gain."""
        spread = {name: replace(costs, shared_spread=0.5) for name, costs in found.costs.items()}
        uncertain = replace(found, costs=spread)
        busy = Statistics(nodes={"a": NodeState(others_busy=0.95)})
        proposal = Replanner(uncertain, lambda: found["throughput"])(busy)
        metric = proposal.distribution.metrics["throughput"]
        assert metric.spread > 0.3 * metric.predicted
        assert proposal.is_clear

    def test_nodes_that_attain_too_little_are_left_and_the_faster_ones_stay(self, found):
        """What an engine does for messages is not predicted; the throughput shows it."""
        running, attained_hz = found["throughput"], None
        assert len(running.nodes) == 3
        plan = Replanner(found, lambda: running, lambda: attained_hz)
        assert not plan(Statistics()).is_clear
        predicted_hz = running.metrics["throughput"].predicted
        attained_hz = 0.2 * predicted_hz
        proposal = plan(Statistics())
        assert proposal.distribution.nodes == ("edge",)
        alone_hz = proposal.distribution.metrics["throughput"].predicted
        assert proposal.gain == pytest.approx(1 - attained_hz / alone_hz, rel=0.01)
        assert proposal.is_clear

        running, attained_hz = proposal.distribution, 0.9 * alone_hz
        assert not plan(Statistics()).is_clear  # three nodes have attained less
        attained_hz = 0.3 * alone_hz
        assert plan(Statistics()).distribution.nodes == found["throughput"].nodes
        attained_hz = None  # not busy any more: what is known stays known
        assert plan(Statistics()).is_clear

    def test_the_same_state_is_planned_for_once(self, found, monkeypatch):
        plan = Replanner(found, lambda: found["throughput"])
        busy = {"a": NodeState(others_busy=0.5, free_bytes=1e9), "b": NodeState()}
        first = plan(Statistics(nodes=busy))
        again = {"a": NodeState(others_busy=0.52, free_bytes=0.98e9), "b": NodeState()}
        assert plan(Statistics(nodes=again)) is first
        for change in (
            {"nodes": {**busy, "a": NodeState(others_busy=0.6, free_bytes=1e9)}},
            {"nodes": {**busy, "a": NodeState(others_busy=0.5, free_bytes=1e8)}},
            {"nodes": busy, "links": (LinkState(source="edge", target="a", gbps=0.1),)},
        ):
            assert plan(Statistics(**change)) is not first
            first = plan(Statistics(nodes=busy))

    def test_messages_over_switches_change_no_link(self, found):
        links = (LinkState(source="edge", target="moon", gbps=1e-6),)
        quiet = Replanner(found, lambda: found["latency"])(Statistics())
        same = Replanner(found, lambda: found["latency"])(Statistics(links=links))
        assert same.gain == pytest.approx(quiet.gain, abs=1e-6)

    def test_without_the_times_of_atoms_nothing_is_planned(self, found, caplog):
        bare = replace(found, costs={}, graph=None)
        assert Replanner(bare, lambda: found["latency"])(Statistics()) is None
        assert "the distributions lack the times of their atoms" in caplog.text
