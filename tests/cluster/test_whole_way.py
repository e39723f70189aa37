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
        share = sum(
            route.weight
            for route in proposal.distribution.routes
            if any(one.node == "a" for one in route.segments)
        )
        assert share < 0.2

    def test_messages_over_switches_change_no_link(self, found):
        links = (LinkState(source="edge", target="moon", gbps=1e-6),)
        quiet = Replanner(found, lambda: found["latency"])(Statistics())
        same = Replanner(found, lambda: found["latency"])(Statistics(links=links))
        assert same.gain == pytest.approx(quiet.gain, abs=1e-6)

    def test_without_the_times_of_atoms_nothing_is_planned(self, found, caplog):
        bare = replace(found, costs={}, graph=None)
        assert Replanner(bare, lambda: found["latency"])(Statistics()) is None
        assert "the distributions lack the times of their atoms" in caplog.text
