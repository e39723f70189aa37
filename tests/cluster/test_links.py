"""Messages: their routes, the line that prices them, and the resources that they occupy."""

import copy
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layoutsel.cluster.links import RATE_SPREAD, MessageRoutes
from layoutsel.cluster.resources import ClusterResources
from layoutsel.cluster.statistics import LinkState, NodeState, Statistics
from layoutsel.cluster.topology import Topology
from layoutsel.planning.resources import in_turn
from tests.cluster.test_topology import LAB
from tvm_passes.errors import LayoutselError


def routes(statistics=None, **changes):
    document = copy.deepcopy(LAB)
    document["links"] = [link | changes for link in document["links"]]
    return MessageRoutes(Topology.read(document), statistics)


def test_a_message_takes_the_time_of_its_slowest_link_and_half_the_round_trips():
    found = routes(cpu_us=0.0).route("edge0", "srv")
    assert found.vertices == ("edge0", "sw", "srv")
    assert found.us(0) == pytest.approx(250.0)
    assert found.us(1_000_000) == pytest.approx(250.0 + 8000.0)  # 1 Gbit/s, not 10


def test_processors_at_both_ends_of_a_link_take_part():
    found = routes().route("srv", "edge0")
    assert [sorted(step.busy) for step in found.steps] == [
        ["link srv-sw", "link sw>edge0"],
        ["host"],
    ]
    assert found.us(0) == pytest.approx(300.0)


def test_a_gateway_passes_messages_on_with_its_processor():
    found = routes(cpu_us=10.0, cpu_ns_per_byte=1.0).route("cam", "srv")
    names = [sorted(step.busy) for step in found.steps]
    wires = ["link edge0>sw", "link srv-sw"]
    assert names == [["cam/cpu/0"], ["medium wifi-1"], ["host"], ["host"], wires, ["srv/cpu/0"]]
    assert found.line.us_per_byte == pytest.approx(4e-3 + 0.08 + 0.008)


def test_links_of_one_medium_share_it():
    found = routes(shares="air", cpu_us=0.0).route("edge0", "srv")
    (step,) = found.steps
    assert step.busy["medium air"].us_per_byte == pytest.approx(8e-3 + 8e-4)


def test_directions_of_a_full_link_are_two_resources():
    both = [routes().route(*pair).steps for pair in (("edge0", "srv"), ("srv", "edge0"))]
    wires = [{name for step in steps for name in step.busy if "link" in name} for steps in both]
    assert wires[0] & wires[1] == {"link srv-sw"}  # the half-duplex one


def test_the_quickest_route_is_taken():
    document = copy.deepcopy(LAB)
    document["nodes"].append({"id": "fast", "kind": "switch"})
    for end in ("edge0", "srv"):
        document["links"].append({"source": end, "target": "fast", "gbps": 2.0, "rtt_us": 9e3})
    found = MessageRoutes(Topology.read(document))
    assert found.route("edge0", "srv").vertices[1] == "sw"
    slow = Statistics(links=(LinkState(source="sw", target="srv", gbps=0.1),))
    found = MessageRoutes(Topology.read(document), slow)
    assert found.route("edge0", "srv").vertices[1] == "fast"


def test_no_route_leads_to_the_node_itself():
    with pytest.raises(LayoutselError, match="no route from node 'srv' to 'srv'"):
        routes().route("srv", "srv")


def test_statistics_replace_rates_and_slow_processors():
    now = Statistics(
        nodes={"edge0": NodeState(others_busy=0.5)},
        links=(LinkState(source="sw", target="edge0", gbps=0.5, rtt_us=800.0, age_s=30.0),),
    )
    found = routes(now).route("edge0", "srv")
    assert found.us(0) == pytest.approx(100.0 + 450.0)
    assert found.line.us_per_byte == pytest.approx(16e-3)
    assert found.spread == pytest.approx(RATE_SPREAD + 0.1)


@settings(deadline=None)
@given(
    size=st.integers(0, 10**9),
    pair=st.sampled_from(list(itertools.permutations(["edge0", "srv", "cam"], 2))),
)
def test_a_price_is_divided_into_the_resources_that_make_it(size, pair):
    found = routes(cpu_ns_per_byte=0.7)
    route = found.route(*pair)
    us = route.us(size)
    assert route.size(us) == pytest.approx(size, rel=1e-6, abs=1e-3)
    memories = [found.processor(node) for node in pair]
    steps = ClusterResources(found).boundary("copy", *memories, us)
    assert in_turn(steps).duration_us == pytest.approx(us)
    for step, divided in zip(route.steps, steps, strict=True):
        for name, line in step.busy.items():
            assert divided.busy_us[name] == pytest.approx(line.at(size), rel=1e-6, abs=1e-3)


def test_other_work_occupies_the_node_where_it_takes_place():
    model = ClusterResources(routes())
    assert model.compute("onednn", "srv/cpu/0", 5.0).busy_us == {"srv/cpu/0": 5.0}
    (step,) = model.boundary("transform", "host", "srv/cpu/0", 3.0)
    assert step.busy_us == {"srv/cpu/0": 3.0}
    assert model.boundary("transform", "host", "srv/cpu/0", 0.0) == []
