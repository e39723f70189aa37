"""Real networks with their sub-graphs forced upon several units: verified against ONNX Runtime, logits included."""

from __future__ import annotations

import pytest
from forced_units import UNITS, WAYS, forced
from on_opencl import needs_device

pytestmark = [needs_device, pytest.mark.nightly]

FORCED = {
    "bvlc_alexnet": "by turns",
    "densenet121": "by turns",
    "inception_v1": "by branches",
    "inception_v2": "by halves",
    "resnet50": "by halves",
    "shufflenet": "by turns",
    "squeezenet": "by branches",
    "vgg19": "by halves",
    "zfnet512": "by turns",
}
"""One way for each network here; bench/forced_units.py tries all ways."""


@pytest.mark.parametrize("network", FORCED)
def test_pins_decide_who_runs_what(network):
    way = FORCED[network]
    compiled, wanted = forced(f"light:{network}", way, threads=2)
    decided = {s["id"]: s["decision"].split(":")[0] for s in compiled.plan["subgraphs"]}
    assert {id_: decided[id_] for id_ in wanted} == wanted
    assert len(wanted) > 0.9 * len(decided)
    assert set(decided.values()) == (set(UNITS) if way == "by turns" else {"cpu", "opencl"})
    assert compiled.header["fallbacks"] == {}
    assert all(check["rel_l2_err"] <= check["tolerance"] for check in compiled.checks)


def test_every_way_is_tried():
    assert set(FORCED.values()) == set(WAYS)
