"""Topologies and statistics: strict reading, networkx's own files, and every inconsistency named."""

import copy
import json
from dataclasses import replace

import pytest

from layoutsel.cluster.statistics import MOST_BUSY, Statistics, stale_spread
from layoutsel.cluster.topology import Topology
from layoutsel.documents import DocumentError

LAB = {
    "directed": False,
    "multigraph": False,
    "graph": {"schema_version": 1, "origin": "edge0"},
    "nodes": [
        {"id": "edge0", "memory_bytes": 8e9, "power_w": {"idle": 2.7, "busy": 8.0}},
        {"id": "srv", "threads": 8, "units": ["cpu"]},
        {"id": "cam", "engine": "tvm-rpc", "via": "edge0"},
        {"id": "sw", "kind": "switch"},
    ],
    "links": [
        {"source": "edge0", "target": "sw", "gbps": 1.0, "rtt_us": 400.0, "cpu_us": 50.0},
        {"source": "srv", "target": "sw", "gbps": 10, "rtt_us": 100, "duplex": "half"},
        {"source": "cam", "target": "edge0", "gbps": 0.1, "rtt_us": 1000.0, "shares": "wifi-1"},
    ],
}


def changed(path, value):
    """`LAB` with one value replaced, or removed if it is None."""
    document = copy.deepcopy(LAB)
    *parents, last = path
    place = document
    for key in parents:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return document


def sorted_ends(link):
    source, target = sorted((link.source, link.target))
    return replace(link, source=source, target=target)


def test_a_topology_survives_its_file(tmp_path):
    lab = Topology.read(LAB)
    assert [node.id for node in lab.computing] == ["edge0", "srv", "cam"]
    lab.save(tmp_path / "lab.json")
    assert Topology.load(tmp_path / "lab.json") == lab


def test_links_may_be_called_edges():
    document = copy.deepcopy(LAB)
    document["edges"] = document.pop("links")
    assert Topology.read(document) == Topology.read(LAB)
    document["edges"][1]["gbps"] = 0
    with pytest.raises(DocumentError, match=r"\$\.edges\[1\]\.gbps: got 0"):
        Topology.read(document)


@pytest.mark.parametrize("name", ["links", "edges"])
def test_networkx_reads_and_writes_topologies(name):
    networkx = pytest.importorskip("networkx", reason="networkx is no dependency")
    graph = networkx.node_link_graph(json.loads(json.dumps(LAB)), edges="links")
    found, lab = Topology.read(networkx.node_link_data(graph, edges=name)), Topology.read(LAB)
    assert (found.graph, found.nodes) == (lab.graph, lab.nodes)
    # Its links have no order, and either end may come first.
    assert set(map(str, map(sorted_ends, found.links))) == set(
        map(str, map(sorted_ends, lab.links))
    )


FAULTS = [
    (("graph", "schema_version"), 2, r"\$\.graph\.schema_version: got 2"),
    (("graph", "origin"), "sw", r"\$\.graph\.origin: got 'sw'; expected the id of a node"),
    (("graph", "origin"), "lost", r"\$\.graph\.origin: got 'lost'"),
    (("graph", "origin"), "cam", r"\$\.nodes\[2\]\.via: got 'edge0'; expected no gateway"),
    (("directed",), True, r"\$\.directed: got true"),
    (("multigraph",), True, r"\$\.multigraph: got true"),
    (("nodes", 1, "id"), "edge0", r"\$\.nodes\[1\]\.id: got 'edge0'; expected another id"),
    (("nodes", 1, "id"), "a b", r"\$\.nodes\[1\]\.id: got 'a b'; expected letters"),
    (("nodes", 1, "kind"), "relay", r"\$\.nodes\[1\]\.kind: got 'relay'; expected one of"),
    (("nodes", 1, "threads"), 0, r"\$\.nodes\[1\]\.threads: got 0"),
    (("nodes", 0, "memory_bytes"), -1.0, r"\$\.nodes\[0\]\.memory_bytes: got -1"),
    (("nodes", 0, "memory_bytes"), float("nan"), r"\$\.nodes\[0\]\.memory_bytes: got NaN"),
    (("nodes", 0, "power_w", "busy"), 1.0, r"\$\.nodes\[0\]\.power_w: got idle 2\.7, busy 1"),
    (("nodes", 0, "colour"), "red", r"\$\.nodes\[0\]\.colour: got an unknown field"),
    (("nodes", 3, "units"), ["cpu"], r"\$\.nodes\[3\]\.units: got .*'sw' only relays"),
    (("nodes", 2, "via"), "sw", r"\$\.nodes\[2\]\.via: got 'sw'; expected another node"),
    (("nodes", 2, "via"), "lost", r"\$\.nodes\[2\]\.via: got 'lost'; expected one of edge0"),
    (("nodes", 2, "via"), "srv", r"\$\.nodes\[2\]\.via: got 'srv'; expected a link"),
    (("links", 0, "target"), "lost", r"\$\.links\[0\]\.target: got 'lost'; expected one of"),
    (("links", 0, "target"), "edge0", r"\$\.links\[0\]\.target: got 'edge0'; expected another"),
    (("links", 0, "gbps"), 0.0, r"\$\.links\[0\]\.gbps: got 0"),
    (("links", 0, "gbps"), -1.0, r"\$\.links\[0\]\.gbps: got -1"),
    (("links", 0, "gbps"), None, r"\$\.links\[0\]\.gbps: got nothing"),
    (("links", 0, "rtt_us"), -1.0, r"\$\.links\[0\]\.rtt_us: got -1"),
    (("links", 1, "duplex"), "both", r"\$\.links\[1\]\.duplex: got 'both'; expected one of"),
    (("links", 1, "source"), "edge0", r"\$\.links\[1\]: got a second link between 'edge0' and"),
    (("links", 1), None, r"\$\.nodes\[1\]\.id: got 'srv', which messages from 'edge0' do not"),
    (("links",), None, r"\$\.links: got nothing"),
]


@pytest.mark.parametrize(("path", "value", "message"), FAULTS)
def test_an_inconsistent_topology_is_refused(path, value, message):
    with pytest.raises(DocumentError, match=rf"^lab: at {message}"):
        Topology.read(changed(path, value), file="lab")


def test_a_computing_node_relays_nothing():
    document = changed(("nodes", 3), {"id": "sw"})
    with pytest.raises(DocumentError, match="'srv', which messages from 'edge0' do not reach"):
        Topology.read(document)


def test_a_file_with_nan_is_refused(tmp_path):
    (tmp_path / "lab.json").write_text(json.dumps(LAB).replace("0.1", "NaN"))
    with pytest.raises(DocumentError, match=r"lab\.json: at .*NaN; expected a finite number"):
        Topology.load(tmp_path / "lab.json")


def test_a_lost_gateway_takes_its_nodes_along():
    document = changed(("nodes", 2, "via"), "srv")
    document["links"][2] |= {"source": "cam", "target": "srv"}
    left = Topology.read(document).without("srv")
    assert [node.id for node in left.nodes] == ["edge0", "sw"]
    assert len(left.links) == 1


def test_statistics_survive_their_file(tmp_path):
    lab = Topology.read(LAB)
    now = Statistics.read(
        {
            "schema_version": 1,
            "nodes": {"srv": {"others_busy": 0.5, "age_s": 30.0}},
            "links": [{"source": "sw", "target": "edge0", "gbps": 0.5}],
        },
        lab,
    )
    now.save(tmp_path / "now.json")
    assert Statistics.load(tmp_path / "now.json", lab) == now
    assert now.slowdown("srv") == 2.0
    assert now.slowdown("edge0") == 1.0
    assert now.spread("srv") == stale_spread(30.0) == 0.1


def test_a_fully_busy_node_still_computes():
    now = Statistics.read({"schema_version": 1, "nodes": {"srv": {"others_busy": 1.0}}})
    assert now.slowdown("srv") == pytest.approx(1 / (1 - MOST_BUSY))


def test_old_states_are_less_certain_up_to_a_limit():
    spreads = [stale_spread(age_s) for age_s in (0.0, 1.0, 30.0, 1e9)]
    assert spreads == sorted(spreads)
    assert (spreads[0], spreads[-1]) == (0.0, 0.5)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"nodes": {"sw": {}}}, r"\$\.nodes\.sw: got an unknown node; expected one of cam, edge0"),
        ({"nodes": {"srv": {"others_busy": 1.5}}}, r"\$\.nodes\.srv\.others_busy: got 1\.5"),
        ({"nodes": {"srv": {"age_s": -1.0}}}, r"\$\.nodes\.srv\.age_s: got -1"),
        (
            {"links": [{"source": "srv", "target": "cam"}]},
            r"\$\.links\[0\]: got a link between 'srv' and 'cam'; expected a link of the topology",
        ),
        ({"links": [{"source": "srv", "target": "sw", "gbps": 0.0}]}, r"\$\.links\[0\]\.gbps"),
        ({"segments": {"a": {"us": -1.0, "spread_us": 0.0, "runs": 1}}}, r"\$\.segments\.a\.us"),
    ],
)
def test_statistics_that_do_not_fit_are_refused(document, message):
    with pytest.raises(DocumentError, match=rf"^now: at {message}"):
        Statistics.read({"schema_version": 1, **document}, Topology.read(LAB), file="now")
