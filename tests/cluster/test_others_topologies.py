"""Clusters of Helix and devices of PipeEdge as topologies."""

import pytest
from cluster import helix, pipeedge

from layoutsel import documents
from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.topology import Topology
from layoutsel.errors import LayoutselError

CLUSTER = """
[ComputeNode-0]
type=A100
connected_nodes=['source', 1, 'sink']
[ComputeNode-1]
type=T4
connected_nodes=['source', 0, 'sink']
[Link-source-0]
bandwidth=12.0 * mbps
latency=40 * MilliSec
[Link-0-sink]
bandwidth=13.0 * mbps
latency=60 * MilliSec
[Link-source-1]
bandwidth=1250 * mbps
latency=1 * MilliSec
[Link-1-sink]
bandwidth=1250 * mbps
latency=1 * MilliSec
[Link-0-1]
bandwidth=1 * gbps
latency=1 * MilliSec
"""
PROFILES = """
[A100]
vram_size = 40 * GB
[T4]
vram_size = 16 * GB
"""
TYPES = """
Empty: {bw_Mbps: 0, mem_MB: 0, model_profiles: }
Slow:
  bw_Mbps: 100
  mem_MB: 2048
  model_profiles:
    tiny: [{batch_size: 8, dtype: torch.float32, time_s: [0.5, 0.25]}]
Fast:
  bw_Mbps: 1000
  mem_MB: 8192
  model_profiles:
    tiny: [{batch_size: 8, dtype: torch.float32, time_s: [0.05, 0.025]}]
"""
MODELS = "tiny: {layers: 2, mem_MB: [1.5, 2.0], parameters_in: 100, parameters_out: [50, 10]}"


@pytest.fixture
def helix_cluster(tmp_path):
    (tmp_path / "machine_profiles.ini").write_text(PROFILES)
    (tmp_path / "two.ini").write_text(CLUSTER)
    return tmp_path / "two.ini"


def test_a_helix_cluster_is_a_mesh(helix_cluster):
    found = helix.read(helix_cluster, {"T4": "t4.json"})
    assert Topology.read(documents.to_json(found)) == found
    assert {node.id: (node.machine, node.memory_bytes) for node in found.nodes} == {
        "origin": ("origin.json", None),
        "n0": ("A100.json", 40e9),
        "n1": ("t4.json", 16e9),
    }
    links = {(link.source, link.target): (link.gbps, link.rtt_us) for link in found.links}
    assert links == {
        ("n0", "origin"): (pytest.approx(0.1), 100_000),  # the mean of both directions
        ("n1", "origin"): (10.0, 2000),
        ("n0", "n1"): (8.0, 2000),
    }
    # No node relays the messages of others, although the way over n1 would be quicker.
    assert MessageRoutes(found).route("origin", "n0").vertices == ("origin", "n0")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("type=T4", "type=H100", "got type 'H100'"),
        ("1 * gbps", "1 * furlongs", r"got '1 \* furlongs'; expected a number \* one of mbps"),
    ],
)
def test_strange_helix_files_are_refused(helix_cluster, old, new, message):
    helix_cluster.write_text(CLUSTER.replace(old, new))
    with pytest.raises(LayoutselError, match=message):
        helix.read(helix_cluster)


def test_devices_of_pipeedge_are_a_star(tmp_path):
    yaml = pytest.importorskip("yaml", reason="PipeEdge's files are YAML: PyYAML is absent")
    assert yaml
    for name, text in {
        "types": TYPES,
        "models": MODELS,
        "hosts": "Slow: [a, b]\nFast: [c]",
    }.items():
        (tmp_path / f"{name}.yml").write_text(text)
    found = pipeedge.read_topology(tmp_path / "hosts.yml", tmp_path / "types.yml")
    assert Topology.read(documents.to_json(found)) == found
    assert found.origin == "a"
    assert [node.memory_bytes for node in found.computing] == [2.048e9, 2.048e9, 8.192e9]
    assert MessageRoutes(found).route("a", "c").us(1e6) == pytest.approx(80_000 + 100)
    model = pipeedge.read_model(tmp_path / "models.yml", tmp_path / "types.yml", "tiny")
    assert model.us == {"Slow": (5e5, 2.5e5), "Fast": (5e4, 2.5e4)}
    assert model.bytes == (3200, 1600, 320)
    assert model.weight_bytes == (1.5e6, 2e6)
    with pytest.raises(LayoutselError, match="got model 'huge'; expected one of tiny"):
        pipeedge.read_model(tmp_path / "models.yml", tmp_path / "types.yml", "huge")
    (tmp_path / "hosts.yml").write_text("Quick: [a]")
    with pytest.raises(LayoutselError, match="got type 'Quick'"):
        pipeedge.read_topology(tmp_path / "hosts.yml", tmp_path / "types.yml")
