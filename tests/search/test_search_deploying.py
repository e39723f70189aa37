"""Found networks on their nodes: placed as found, over emulated links, with the whole's results."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from joint_spaces import SIGNALS

from layoutsel.cluster.statistics import NodeState, Statistics
from layoutsel.cluster.topology import Header, Link, Node, Topology
from layoutsel.search.deploying import distributions_as_found, measure
from layoutsel.search.early_exits import placed_with_exits, with_exits, write_with_exits
from layoutsel.search.found import NETWORK, FoundNetwork
from layoutsel.search.networks import write_network
from layoutsel.search.parts import parts_of
from layoutsel.search.run_folder import RunFolder, SearchQuestion, network_in
from layoutsel.search.space import Architecture
from layoutsel.search.trained import part_of, write_trained
from tvm_passes.errors import LayoutselError

NETWORK_OF_FOUR = Architecture(channels=(12, 16), operations=(("separable5",), ("conv3",)))
PLACEMENT = {"stem": "edge", "one.0-1": "hub", "two.0-1": "hub", "head": "edge"}
ROUND_TRIP_US = 20_000.0


def topology(machine: str = "", radio: bool = False) -> Topology:
    """Two nodes; with a radio, they have another way that is twice as slow."""
    ways = (
        Link(source="edge", target="radio", gbps=0.01, rtt_us=2 * ROUND_TRIP_US),
        Link(source="radio", target="hub", gbps=1.0, rtt_us=0.0),
    )
    return Topology(
        directed=False,
        multigraph=False,
        graph=Header(schema_version=1, origin="edge"),
        nodes=(
            Node(id="edge", threads=1),
            Node(id="hub", threads=None if machine else 1, machine=machine),
            *((Node(id="radio", kind="switch"),) if radio else ()),
        ),
        links=(
            Link(source="edge", target="hub", gbps=0.02, rtt_us=ROUND_TRIP_US),
            *(ways if radio else ()),
        ),
    )


def question(machine: str = "", radio: bool = False) -> SearchQuestion:
    return SearchQuestion(
        kind="joint",
        space=SIGNALS,
        topology=topology(machine, radio),
        statistics=Statistics(nodes={"edge": NodeState(others_busy=0.5)}),
        seed=0,
    )


def random_weights(graph):
    """Weights of a network with random ones, by part."""
    held = iter(write_network(graph, seed=3).graph.initializer)
    counts = {"separable5": 4, "conv3": 2, "head": 2}
    return {
        part.name: tuple(
            onnx.numpy_helper.to_array(next(held)) for _ in range(counts[part.signature.operation])
        )
        for part in graph.parts
    }


@pytest.fixture
def model():
    graph = parts_of(SIGNALS, NETWORK_OF_FOUR)
    return write_trained(graph, random_weights(graph))


@pytest.fixture
def found():
    return FoundNetwork(
        number=0,
        architecture=NETWORK_OF_FOUR,
        placement=PLACEMENT,
        sent=(),
        predicted_us=1.0,
        spread_us=0.0,
        accuracies={},
    )


def test_nodes_have_the_names_of_their_parts(model):
    parts = [part_of(node.name) for node in model.graph.node]
    assert list(dict.fromkeys(parts)) == list(PLACEMENT)
    assert parts.count("one.0-1") == 4  # two convolutions with their activations
    assert parts.count("head") == 3


def test_every_subgraph_is_on_the_node_of_its_part(model, tmp_path):
    asked = question()
    made = distributions_as_found(
        model, PLACEMENT, asked.topology, asked.statistics, tmp_path, cost="roofline"
    )
    (route,) = made["latency"].routes
    assert [segment.node for segment in route.segments] == ["edge", "hub", "edge"]
    sizes = {(one.source, one.destination): one.bytes for one in route.transfers}
    assert sizes == {("edge", "hub"): 4 * 8 * 40, ("hub", "edge"): 4 * 16 * 20}
    predicted = made["latency"].metrics["latency"].predicted
    assert predicted == pytest.approx(
        sum(one.us for one in route.segments) + sum(one.us for one in route.transfers)
    )


def test_an_early_exit_ends_a_segment(tmp_path):
    graph = with_exits(parts_of(SIGNALS, NETWORK_OF_FOUR), ["one.0-1"])
    assert [part.name for part in graph.parts] == ["stem", "one.0-1", "exit1", "two.0-1", "head"]
    placement = placed_with_exits(graph, dict.fromkeys(PLACEMENT, "hub"))
    model = write_with_exits(graph, random_weights(graph))
    asked = question()
    made = distributions_as_found(
        model, placement, asked.topology, asked.statistics, tmp_path, cost="roofline"
    )
    (route,) = made["latency"].routes
    first, second = route.segments
    assert first.node == second.node == "hub"
    assert set(first.outputs) > {"output.0"}
    assert second.outputs == ("output.1",)


def test_a_network_of_other_parts_is_rejected(model, tmp_path):
    asked = question()
    with pytest.raises(
        LayoutselError, match=r"got operators of one\.0-1; expected one of the parts"
    ):
        distributions_as_found(
            model, {"stem": "edge"}, asked.topology, asked.statistics, tmp_path, cost="roofline"
        )


def test_a_deployed_network_is_measured_against_its_prediction(model, found, tmp_path):
    run = RunFolder.begin(tmp_path / "run", question(), tmp_path)
    folder = run.keep(found)
    onnx.save(model, folder / NETWORK)
    told: list[str] = []
    made = measure(run, found, told.append, requests=5, cost="roofline")
    (measured,) = made.measured
    assert measured.median_us >= ROUND_TRIP_US + 8e-3 * 4 * (8 * 40 + 16 * 20) / 0.02
    assert min(measured.predicted_us, measured.staged_us) >= ROUND_TRIP_US
    assert measured.error <= 1e-5
    assert measured.relative_error == pytest.approx(measured.predicted_us / measured.median_us - 1)
    opened, kept = network_in(folder)
    assert kept == made
    assert opened.question == run.question
    assert np.isfinite(measured.measured_spread_us)


@pytest.mark.parametrize(("link", "factor"), [("hub", 1), ("radio", 2)])
def test_messages_go_over_the_link_of_the_network(model, found, tmp_path, link, factor):
    run = RunFolder.begin(tmp_path / "run", question(radio=True), tmp_path)
    found = replace(found, link=link)
    onnx.save(model, run.keep(found) / NETWORK)
    made = measure(run, found, lambda _text: None, requests=3, cost="roofline")
    (measured,) = made.measured
    least_us = factor * (ROUND_TRIP_US + 8e-3 * 4 * (8 * 40 + 16 * 20) / 0.02)
    assert measured.median_us >= least_us
    assert least_us <= measured.predicted_us < 1.5 * least_us
    assert network_in(run.path / "0")[1].link == link


def test_another_machine_is_not_emulated(found, tmp_path):
    (tmp_path / "fast.json").write_text("{}")
    run = RunFolder.begin(tmp_path / "run", question("fast.json"), tmp_path)
    run.keep(found)
    with pytest.raises(LayoutselError, match=r"node 'hub': got the machine file .*--engine ray"):
        measure(run, found, lambda _text: None)
