"""Modes of precision: what they offer, what they refuse, and what becomes of guesses and pins."""

import math
import random
from dataclasses import replace

import pytest

from layoutsel.core.precision import MODES, check_budget, precision_mode
from layoutsel.planning.hybrid import without_estimates, without_guesses
from layoutsel.planning.pins import UnsatisfiedPin, check_offered
from tests.planning.problems import graph_problem
from tvm_passes.errors import LayoutselError


@pytest.mark.parametrize(
    ("name", "usual", "averaged", "head", "softmax"),
    [
        ("f32", "f32", "f32", "f32", "f32"),
        ("f32-grade", "f32 split-bf16", "f32 split-bf16", "f32", "f32"),
        ("bf16", "f32 bf16", "f32 bf16 split-bf16", "f32 split-bf16", "f32"),
        ("auto", *["f32 split-bf16 bf16"] * 4),
    ],
)
def test_what_a_mode_offers(name, usual, averaged, head, softmax):
    """What is averaged, over 13×13 pixels: every mode has room for that."""
    cases = {0.0: usual, 1 / 13: averaged, 1.0: head, math.inf: softmax}
    for felt, expected in cases.items():
        offered = {
            precision
            for precision in ("f32", "bf16", "split-bf16", "int8")
            if MODES[name].offers(precision, felt)
        }
        assert offered == {*expected.split(), "int8"}, "integers are a quantised model's own"


def test_a_head_needs_a_tolerance_that_has_room_for_its_rounding():
    mode = replace(MODES["bf16"], tolerance=0.1)
    assert mode.offers("bf16", 1.0)
    assert not mode.offers("bf16", 2.0)


def test_a_budget_is_the_tolerance_of_auto_alone():
    assert precision_mode("auto").tolerance == 1e-3
    assert precision_mode("auto", 0.5).tolerance == 0.5
    with pytest.raises(LayoutselError, match="expected it with 'auto' alone"):
        precision_mode("bf16", 1e-3)
    with pytest.raises(LayoutselError, match="expected one of f32, f32-grade, bf16, auto"):
        precision_mode("int8")
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(LayoutselError, match="expected a number above 0"):
            precision_mode("auto", wrong)


def test_a_budget_needs_verification():
    check_budget(MODES["bf16"], verify=False)
    check_budget(MODES["auto"], verify=True)
    with pytest.raises(LayoutselError, match="leave out --no-verify"):
        check_budget(MODES["auto"], verify=False)


def test_pins_to_a_precision_that_is_not_offered():
    check_offered(["s3=onednn:NHWC:bf16", "s1=cpu", "s2=cpu:*:*:direct"], MODES["bf16"])
    check_offered(["last=cpu:NHWC:split-bf16"], MODES["bf16"])  # for what is sensitive
    with pytest.raises(UnsatisfiedPin) as caught:
        check_offered(["s3=onednn:NHWC:bf16"], MODES["f32"])
    assert str(caught.value) == (
        "pin 's3=onednn:NHWC:bf16' asks for precision bf16, which precision 'f32' does not offer: expected f32; "
        "--precision bf16 or auto offers it"
    )
    with pytest.raises(UnsatisfiedPin, match=r"asks for precision f8.*expected f32 or bf16$"):
        check_offered(["s3=cpu:NHWC:f8"], MODES["bf16"])


def guessed(problem, source):
    """The problem with a bf16 twin of every candidate, whose price comes from `source`."""

    def twin(option):
        decision = replace(option.decision, precision="bf16")
        return replace(option, decision=decision, source=source)

    nodes = tuple(
        replace(node, options=(*node.options, *map(twin, node.options))) for node in problem.nodes
    )
    return replace(problem, nodes=nodes)


def test_guesses_are_left_out_with_a_reason():
    problem = graph_problem([[-1], [0]], random.Random(0))
    kept = without_guesses(guessed(problem, "roofline"))
    for before, after in zip(problem.nodes, kept.nodes, strict=True):
        assert after.options == before.options
        assert {decline.got for decline in after.declines} == {
            "nothing but the estimate of its roofline"
        }
    known = guessed(problem, "measured")
    assert without_guesses(known) == known


def test_a_sub_graph_that_has_guesses_alone_keeps_them():
    problem = guessed(graph_problem([[-1]], random.Random(0)), "roofline")
    only = problem.restrict(lambda _node, option: option.decision.precision == "bf16")
    assert without_guesses(only) == only


def test_what_nobody_measured_of_a_unit_is_left_out():
    known = graph_problem([[-1], [0]], random.Random(0))
    unit = known.units[0]
    estimated = replace(
        known,
        nodes=tuple(
            replace(n, options=tuple(replace(o, source="roofline") for o in n.options))
            for n in known.nodes
        ),
    )
    for before, after in zip(
        estimated.nodes, without_estimates(estimated, [unit]).nodes, strict=True
    ):
        others = tuple(o for o in before.options if o.decision.unit != unit)
        assert after.options == (others or before.options)
    assert without_estimates(estimated, ()) == estimated
    assert without_estimates(known, [unit]) == known
