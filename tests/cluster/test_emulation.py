"""Emulated links and loads: messages take their predicted time, and busy nodes longer."""

from __future__ import annotations

import itertools
import time
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest
from divided import CLASS, PATIENT, distribution, distributions, image, network, plan_in_atoms

from layoutsel.cluster.deploying import deploy
from layoutsel.cluster.emulation import Emulation
from layoutsel.cluster.engine import NodeTensor, RunTimes
from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.node_queues import ClusterLimits
from layoutsel.cluster.segment_runner import PackedTensor
from layoutsel.cluster.statistics import NodeState, Statistics
from layoutsel.cluster.topology import Header, Link, Node, Topology
from layoutsel.errors import WorkerClosed

LIMIT_S = 60
NODES = ("edge", "far", "farther")
RATE_GBPS = 0.008
"""A byte takes a microsecond."""
ROUND_TRIP_US = 20_000


def chain() -> Topology:
    """Three nodes in a row: messages between both ends pass the middle."""
    return Topology(
        directed=False,
        multigraph=False,
        graph=Header(schema_version=1, origin="edge"),
        nodes=(*(Node(id=node, threads=1) for node in NODES[:2]), Node(id="farther", via="far")),
        links=tuple(
            Link(source=one, target=other, gbps=RATE_GBPS, rtt_us=ROUND_TRIP_US)
            for one, other in itertools.pairwise(NODES)
        ),
    )


@pytest.fixture
def emulation():
    state = Statistics(nodes={"far": NodeState(others_busy=0.75)})
    emulation = Emulation(MessageRoutes(chain(), state))
    yield emulation
    emulation.close()


def made(size: int, node: str) -> NodeTensor:
    """A tensor on a node."""
    handle: Future[PackedTensor] = Future()
    handle.set_result(PackedTensor.plain(np.zeros(size, np.uint8)))
    return NodeTensor(node=node, handle=handle)


def arrivals_s(emulation, sent):
    """Seconds after which tensors arrive, each given with its destination."""
    start_s = time.monotonic()
    refs = [emulation.arriving({"x": ref}, node)["x"] for ref, node in sent]
    ends: dict[int, float] = {}
    for number, ref in enumerate(refs):
        note = lambda _one, number=number: ends.setdefault(number, time.monotonic())  # noqa: E731
        ref.handle.add_done_callback(note)
    for ref in refs:
        ref.handle.result(LIMIT_S)
    return [ends[number] - start_s for number in range(len(refs))]


def test_a_message_takes_the_time_of_its_route(emulation):
    (own_s,) = arrivals_s(emulation, [(made(50_000, "edge"), "edge")])
    (far_s,) = arrivals_s(emulation, [(made(50_000, ""), "far")])
    (farther_s,) = arrivals_s(emulation, [(made(50_000, "farther"), "")])
    assert own_s < 0.06 <= far_s
    assert farther_s >= 0.12  # once over each link, and half of both round trips


def test_messages_wait_for_each_other_on_a_link_and_not_on_others(emulation):
    first_s, second_s, other_s = arrivals_s(
        emulation,
        [(made(50_000, "edge"), "far"), (made(50_000, "edge"), "far"), (made(9, "farther"), "far")],
    )
    assert first_s < second_s
    assert second_s >= 0.11  # two transmissions, and half a round trip once
    assert other_s < second_s


def test_a_tensor_is_sent_once_to_a_node(emulation):
    ref = made(50_000, "edge")
    one, other = (emulation.arriving({"x": ref}, "far")["x"].handle for _ in range(2))
    assert one is other
    assert emulation.arriving({"x": ref}, "farther")["x"].handle is not one


def test_a_busy_node_computes_longer(emulation):
    times = RunTimes(queue_us=5.0, unpack_us=1.0, compute_us=10_000.0, pack_us=2.0)
    start_s = time.monotonic()
    assert emulation.slowed("far", times) == replace(times, compute_us=40_000.0)
    assert time.monotonic() - start_s >= 0.03
    assert emulation.slowed("edge", times) == times


def test_a_closed_emulation_fails_what_is_on_its_way(emulation):
    sent = emulation.arriving({"x": made(50_000_000, "edge")}, "far")["x"]
    emulation.close()
    late = emulation.arriving({"x": made(5, "edge")}, "far")["x"]
    for one in (sent, late):
        with pytest.raises(WorkerClosed):
            one.handle.result(LIMIT_S)


def test_an_error_of_the_producer_arrives_as_well(emulation):
    handle: Future[PackedTensor] = Future()
    sent = emulation.arriving({"x": NodeTensor(node="edge", handle=handle)}, "far")["x"]
    handle.set_exception(ValueError("lost"))
    with pytest.raises(ValueError, match="lost"):
        sent.handle.result(LIMIT_S)


def test_a_deployed_network_takes_at_least_the_time_of_its_messages(compiled, artifact):
    plan = plan_in_atoms(network())
    way = ("a", "a", "b", "edge")
    nodes = ("edge", "a", "b")
    document = distributions(plan, distribution(plan.stages, {way: 1}), nodes)
    pairs = itertools.combinations(nodes, 2)
    links = tuple(Link(source=x, target=y, gbps=1.0, rtt_us=ROUND_TRIP_US) for x, y in pairs)
    document = replace(document, topology=replace(document.topology, links=links))
    options = {"engine": "emulated", "limits": ClusterLimits(**PATIENT)}
    with deploy(document, "latency", {CLASS: artifact.path}, **options) as deployed:
        deployed(image(0))
        start_s = time.monotonic()
        np.testing.assert_array_equal(deployed(image(1)), compiled(image(1)))
        assert time.monotonic() - start_s >= 0.03  # edge to a, a to b, b to edge
