"""Pins: what they match, what they keep, and why they fail."""

import random
from dataclasses import replace

import pytest

from layoutsel.planning.pins import Pin, UnsatisfiedPin, apply_pins
from layoutsel.planning.solve import solve
from tests.planning.problems import graph_problem, residual_chain
from tvm_passes.decision import Decision
from tvm_passes.errors import Decline

DECLINE = Decline(
    subgraph="s1",
    operator="nn.conv2d",
    decision="onednn:NCHW16c",
    got="30 channels",
    expected="a multiple of 16",
)


@pytest.fixture
def problem():
    made = graph_problem(residual_chain(2), random.Random(1))
    first, second, *rest = made.nodes
    kept = tuple(o for o in second.options if str(o.decision) != DECLINE.decision)
    second = replace(
        second, options=kept, declines=(DECLINE,), operators=("nn.max_pool2d", "nn.relu")
    )
    return replace(made, nodes=(first, second, *rest))


def decided(problem, *pins):
    return solve(apply_pins(problem, pins)).decisions


def test_by_id_name_and_operator(problem):
    for pattern in ("s1", "op_s1", "nn.max_pool2d", r"nn\.relu", "s1|nothing"):
        decisions = decided(problem, f"{pattern}=cpu:NHWC")
        assert decisions["s1"] == Decision(unit="cpu", layout="NHWC"), pattern
    decisions = decided(problem, "op_s[2-4]=onednn:NCHW16c")
    assert {decisions[f"s{i}"] for i in (2, 3, 4)} == {Decision.parse("onednn:NCHW16c")}


def test_partial_decisions(problem):
    assert {d.unit for d in decided(problem, ".*=cpu").values()} == {"cpu"}
    assert {d.layout for d in decided(problem, ".*=*:NHWC").values()} == {"NHWC"}
    both = decided(problem, ".*=cpu", "s3=*:NHWC")
    assert both["s3"] == Decision(unit="cpu", layout="NHWC")


def test_no_pins_change_nothing(problem):
    assert apply_pins(problem, []) == problem


def test_a_pattern_may_contain_an_equals_sign():
    pin = Pin.parse("(?=s)s7=cpu")
    assert pin.pattern.pattern == "(?=s)s7"
    assert pin.fields == ("cpu",)


@pytest.mark.parametrize("text", ["", "s7", "=cpu", "s7=", "s7=cpu:", "s7=a:b:c:d:e", "s(=cpu"])
def test_unreadable(text):
    with pytest.raises(UnsatisfiedPin, match="cannot read pin"):
        Pin.parse(text)


def test_matches_nothing(problem):
    with pytest.raises(UnsatisfiedPin) as caught:
        apply_pins(problem, ["conv=cpu"])
    assert str(caught.value) == (
        "pin 'conv=cpu' matches no sub-graph: 'conv' is compared, as a whole, with ids "
        "(s0, s1, s2, ...), names (op_s0, op_s1, op_s2, ...) and operators "
        "(nn.conv2d, nn.max_pool2d, nn.relu)"
    )


def test_quotes_the_decline(problem):
    with pytest.raises(UnsatisfiedPin) as caught:
        apply_pins(problem, [".*=onednn:NCHW16c"])
    assert "cannot be honoured for sub-graph s1 (nn.max_pool2d, nn.relu): " in str(caught.value)
    assert str(DECLINE) in str(caught.value)
    assert "Its candidates: cpu:NCHW, cpu:NHWC, cpu:NCHW16c, onednn:NCHW" in str(caught.value)
    with pytest.raises(UnsatisfiedPin, match="no unit offers it"):
        apply_pins(problem, ["s0=gpu"])


def test_conflict(problem):
    with pytest.raises(UnsatisfiedPin, match=r"pins 's0=cpu' and 's\.=onednn' together leave"):
        apply_pins(problem, ["s0=cpu", "s.=onednn"])


def on_devices(node):
    """`node` with candidates on three devices of one kind."""
    option = node.options[0]
    decisions = [Decision.parse(f"cuda@{index}:NCHW") for index in range(3)]
    return replace(node, options=tuple(replace(option, decision=d) for d in decisions))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("s7=cuda", ["cuda:NCHW", "cuda@1:NCHW", "cuda@2:NCHW"]),
        ("s7=cuda@0", ["cuda:NCHW"]),
        ("s7=cuda@2", ["cuda@2:NCHW"]),
        ("s7=*@1:NCHW", ["cuda@1:NCHW"]),
        ("s7=cuda@edge0/0", []),
        ("s7=cuda@1:NHWC", []),
    ],
)
def test_a_pin_names_one_device_or_leaves_it_open(problem, text, kept):
    node = on_devices(problem.nodes[0])
    pin = Pin.parse(text)
    assert [str(o.decision) for o in node.options if pin.allows(o.decision)] == kept


@pytest.mark.parametrize("text", ["s7=cuda@", "s7=cuda@x", "s7=@1", "s7=cuda@01"])
def test_a_pin_to_a_device_that_cannot_be_read(text):
    with pytest.raises(UnsatisfiedPin, match=r"expected unit\[@\[node/\]index\]"):
        Pin.parse(text)
