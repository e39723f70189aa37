"""Real networks with their sub-graphs on three units: verified against ONNX Runtime, logits included."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from on_opencl import needs_device

import layoutsel
from layoutsel.session import Session
from layoutsel.units.base import units

pytestmark = [needs_device, pytest.mark.slow]

UNITS = [name for name in ("cpu", "onednn", "opencl") if units()[name].unavailable() is None]

Choice = Callable[[int, int], str]
"""The unit of a sub-graph by its number, and how many there are."""

CHOICES: dict[str, Choice] = {
    "by turns": lambda index, _count: UNITS[index % len(UNITS)],
    "by halves": lambda index, count: "opencl" if 2 * index < count else "cpu",
}


@pytest.mark.parametrize(
    ("network", "choice"),
    [("squeezenet", "by halves"), ("shufflenet", "by turns")],
)
def test_pins_decide_who_runs_what(network, choice):
    name = f"light:{network}"
    candidates = Session.open(name, units=UNITS, threads=2).candidates
    wanted = {id_: CHOICES[choice](i, len(candidates)) for i, id_ in enumerate(candidates)}
    able = {id_: {d.unit for d in candidates[id_].decisions} for id_ in wanted}
    pins = [f"{id_}={unit}" for id_, unit in wanted.items() if unit in able[id_]]
    compiled = layoutsel.optimize(
        name, units=UNITS, threads=2, pins=pins, cost="roofline", verify_speed=False
    )
    decided = {s["id"]: s["decision"].split(":")[0] for s in compiled.plan["subgraphs"]}
    assert {id_: decided[id_] for id_ in wanted if wanted[id_] in able[id_]} == {
        id_: unit for id_, unit in wanted.items() if unit in able[id_]
    }
    assert len(pins) > 0.9 * len(wanted)
    assert compiled.header["fallbacks"] == {}
    assert all(check["rel_l2_err"] <= check["tolerance"] for check in compiled.checks)
