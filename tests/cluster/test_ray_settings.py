"""Protection of clusters, and links as the probes measure them; without Ray."""

from __future__ import annotations

import json

import pytest

from layoutsel.cluster.joining import Joining, way_to
from layoutsel.cluster.probing import MeasuredLink, with_links
from layoutsel.cluster.ray_settings import RESOURCE, TLS_FILES, Security, environment, is_loopback
from layoutsel.cluster.topology import Topology
from tvm_passes.errors import LayoutselError


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:6379", True),
        ("[::1]:6379", True),
        ("::1", True),
        ("localhost:6379", True),
        ("10.0.0.1:6379", False),
        ("head.example:6379", False),
        ("0.0.0.0", False),
    ],
)
def test_loopback_is_recognised(address, expected):
    assert is_loopback(address) == expected


class TestSecurity:
    def test_other_machines_need_a_token(self, tmp_path):
        with pytest.raises(LayoutselError, match=r"10.0.0.1:6379 can be reached .* --token-file"):
            Security().check("127.0.0.1", "10.0.0.1:6379")
        Security().check("127.0.0.1")
        Security(is_insecure=True).check("10.0.0.1")
        token = tmp_path / "token"
        token.write_text("secret")
        Security(token_file=token).check("10.0.0.1")

    @pytest.mark.parametrize("content", [None, "", " \n"])
    def test_a_missing_or_empty_token_is_refused(self, tmp_path, content):
        token = tmp_path / "token"
        if content is not None:
            token.write_text(content)
        with pytest.raises(LayoutselError, match=r"--token-file .*got no file with a token"):
            Security(token_file=token).check("127.0.0.1")

    def test_an_incomplete_tls_folder_is_refused(self, tmp_path):
        (tmp_path / "tls.crt").touch()
        with pytest.raises(LayoutselError, match=r"tls.key is missing; expected tls.crt, tls.key"):
            Security(tls=tmp_path).check("127.0.0.1")
        for name in TLS_FILES.values():
            (tmp_path / name).touch()
        Security(tls=tmp_path).check("127.0.0.1")

    def test_the_environment_never_holds_the_token_itself(self, tmp_path):
        token = tmp_path / "token"
        token.write_text("secret")
        found = environment(Security(token_file=token), {})
        assert found["RAY_AUTH_MODE"] == "token"
        assert found["RAY_AUTH_TOKEN_PATH"] == str(token)
        assert "secret" not in json.dumps(found)
        assert environment(Security(), {})["RAY_AUTH_MODE"] == "disabled"


def test_a_node_joins_with_its_mark_and_without_dashboard():
    head = Joining(node="edge0", own_address="127.0.0.1", threads=2, store_bytes=1 << 28)
    command = head.command()
    assert {"--head", "--include-dashboard=false", "--num-cpus=2"} <= set(command)
    assert f"--resources={json.dumps({RESOURCE + 'edge0': 1})}" in command
    other = Joining(
        node="srv", own_address="10.0.0.2", head="10.0.0.1:6379", threads=1, store_bytes=1 << 28
    )
    assert "--address=10.0.0.1:6379" in other.command()
    assert "--head" not in other.command()


def test_the_way_to_this_machine_is_itself():
    assert way_to("127.0.0.1:6379") == "127.0.0.1"
    with pytest.raises(LayoutselError, match="expected HOST:PORT of the head"):
        way_to("127.0.0.1:port")


def measured(one: str, other: str, us: float, us_per_byte: float, **cpu: float) -> MeasuredLink:
    none = {"cpu_us": 0.0, "cpu_ns_per_byte": 0.0}
    return MeasuredLink(nodes=(one, other), us=us, us_per_byte=us_per_byte, **{**none, **cpu})


def test_processor_time_is_no_part_of_the_wire():
    link = measured("a", "b", 1000, 0.010, cpu_us=300, cpu_ns_per_byte=1)
    assert link.gbps == pytest.approx(1)
    assert link.rtt_us == pytest.approx(2 * 400)
    assert measured("a", "b", 1000, 0.01, cpu_us=900, cpu_ns_per_byte=90).gbps > 0


def test_measured_messages_change_the_links_on_their_way():
    """a and b at a switch, c behind its gateway b: the message from a to c says nothing."""
    document = {
        "directed": False,
        "multigraph": False,
        "graph": {"schema_version": 1, "origin": "a"},
        "nodes": [
            {"id": "a"},
            {"id": "b"},
            {"id": "c", "via": "b"},
            {"id": "sw", "kind": "switch"},
        ],
        "links": [
            {"source": one, "target": other, "gbps": 10, "rtt_us": 1}
            for one, other in (("a", "sw"), ("sw", "b"), ("b", "c"))
        ],
    }
    topology = Topology.read(document)
    found = with_links(
        topology,
        [
            measured("a", "b", 500, 0.008),
            measured("b", "c", 100, 0.08),
            measured("a", "c", 900, 0.8),
        ],
    )
    links = {(link.source, link.target): link for link in found.links}
    assert {ends: round(link.gbps, 6) for ends, link in links.items()} == {
        ("a", "sw"): 1,
        ("sw", "b"): 1,
        ("b", "c"): 0.1,
    }
    assert links["a", "sw"].rtt_us == pytest.approx(500)
    assert links["b", "c"].rtt_us == pytest.approx(200)
    found.check()
