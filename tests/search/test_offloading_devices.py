"""Two devices and their link: options as people write them, and bad ones."""

from __future__ import annotations

import pytest

from layoutsel.search.two_devices import (
    parse_bytes,
    parse_link,
    parse_time_us,
    two_devices,
)
from tvm_passes.errors import LayoutselError


def test_a_link_has_a_rate_and_a_round_trip():
    assert parse_link("20Mbit/s,5ms") == (pytest.approx(0.02), pytest.approx(5000))
    assert parse_link(" 1.5 Gbit/s , 200us") == (pytest.approx(1.5), pytest.approx(200))
    assert parse_link("64kbit/s,1s") == (pytest.approx(64e-6), pytest.approx(1e6))


@pytest.mark.parametrize("text", ["0Mbit/s,5ms", "20Mbit/s", "20MB/s,5ms", "20Mbit/s,5", ",5ms"])
def test_a_link_without_a_rate_is_rejected(text):
    with pytest.raises(LayoutselError, match=r"--link .*: expected a rate above 0 and the time"):
        parse_link(text)


def test_times_and_sizes_have_units():
    assert parse_time_us("--max-latency", "8ms") == 8000
    assert parse_bytes("--max-bytes", "2kB") == 2000
    for parse, text in ((parse_time_us, "8"), (parse_time_us, "0ms"), (parse_bytes, "many")):
        with pytest.raises(LayoutselError, match=f"--option {text}: expected a"):
            parse("--option", text)


def test_the_first_device_holds_the_inputs(tmp_path):
    topology, state = two_devices("20Mbit/s,5ms", server=tmp_path / "a.json", loads=(0.5, 0))
    assert topology.origin == "device"
    assert [node.id for node in topology.computing] == ["device", "server"]
    assert [node.threads for node in topology.nodes] == [1, None]
    assert topology.nodes[1].machine == str(tmp_path / "a.json")
    assert state.slowdown("device") == pytest.approx(2)
    assert state.slowdown("server") == 1


def test_a_load_beyond_1_is_rejected():
    with pytest.raises(LayoutselError, match=r"nodes.device.others_busy.*a share from 0 to 1"):
        two_devices("20Mbit/s,5ms", loads=(1.5, 0.0))
