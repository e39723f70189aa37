"""Where a prediction was off, by part: on a plan and an observation made by hand."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from layoutsel.cost.tensor import Tensor, TensorUse
from layoutsel.planning.attribute import attribute, predicted_again
from layoutsel.planning.new_plan import make_plan
from layoutsel.planning.plan import Plan
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph
from layoutsel.planning.residuals import Ran, TracedRuns
from layoutsel.planning.solve import solve
from tests.planning.problems import price_tensors
from tvm_passes.decision import Decision

PLANNED = (
    ("s0", "onednn:NHWC", 100.0, "learned"),
    ("s1", "onednn:NHWC", 50.0, "measured"),
    ("s2", "onednn:NHWC", 10.0, "measured"),
    ("s3", "cpu:NCHW", 40.0, "learned"),
)
"""Id, decision, microseconds, source; transforms cost 8, crossings 2."""


def ran(us: float, count: int = 1) -> Ran:
    return Ran(us=us, spread_us=1.0, count=count)


@pytest.fixture
def plan() -> Plan:
    nodes = []
    for id_, text, us, source in PLANNED:
        decision = Decision.parse(text)
        places = {"in_layouts": (decision.layout,), "out_layouts": (decision.layout,)}
        option = Option(decision=decision, cost_us=us, spread_us=1.0, source=source, **places)
        nodes.append(PricedSubgraph(id=id_, options=(option,)))
    ids = [None, *(node.id for node in nodes), None]
    tensors = [
        Tensor(
            producer=producer,
            output_index=0,
            uses=(TensorUse(consumer=consumer, input_index=0),),
            shape=(1, 8, 4, 4),
        )
        for producer, consumer in itertools.pairwise(ids)
    ]
    priced = price_tensors(
        tensors, nodes, lambda *_: 8.0, lambda _, source, __: 2.0 * (source != "host")
    )
    problem = PlanningProblem(nodes=tuple(nodes), tensors=priced)
    return make_plan(problem, solve(problem), strategy="joint", machine="m", versions={})


@pytest.fixture
def observed() -> TracedRuns:
    """s2 is done in place by its neighbours; one of the two transforms is not needed."""
    return TracedRuns(
        runs=20,
        whole_us=300.0,
        traced_us=330.0,
        subgraphs={"s0": ran(120.0), "s1": ran(45.0), "s3": ran(60.0)},
        transforms={"NCHW>NHWC": ran(30.0)},
        merged=frozenset({"s0", "s1"}),
    )


def test_the_parts_add_up(plan, observed):
    residuals = attribute(plan, observed, 300.0)
    crossings = sum(b.cost_us for b in plan.boundaries if b.kind == "crossing")
    assert residuals.scale == 1
    assert residuals.tracing_us == 30
    assert residuals.parts["sub-graphs"] == pytest.approx(20 + 20)
    assert residuals.parts["fusion"] == pytest.approx(-5 - 10)
    assert residuals.parts["transforms"] == pytest.approx((30 - 8) - 8)
    assert residuals.parts["hand-overs"] == pytest.approx((300 - 255) - crossings)
    assert sum(residuals.parts.values()) == pytest.approx(300 - plan.cost_us)
    assert {s.id for s in residuals.subgraphs if s.merged} == {"s0", "s1", "s2"}
    assert [s.id for s in residuals.worst(2)] == ["s0", "s3"]
    counts = {t.name: (t.predicted, t.ran) for t in residuals.transforms}
    assert counts == {"NCHW>NHWC": (1, 1), "NHWC>NCHW": (1, 0)}


def test_steps_that_tracing_slowed_are_scaled_to_fit(plan, observed):
    slowed = replace(observed, whole_us=204.0)
    residuals = attribute(plan, slowed, 204.0)
    assert residuals.scale == pytest.approx(0.8)
    assert sum(s.in_plan_us for s in residuals.subgraphs) == pytest.approx(0.8 * 225)


def test_a_machine_that_was_faster_in_the_race(plan, observed):
    residuals = attribute(plan, observed, 150.0)
    assert residuals.scale == pytest.approx(0.5)
    assert sum(residuals.parts.values()) == pytest.approx(150 - plan.cost_us)


def test_what_cannot_be_told_apart_is_with_the_hand_overs(plan, observed):
    """A unit that does not tell of its steps is one call of unknown content."""
    blind = replace(observed, subgraphs={"p0": ran(165.0), "s3": ran(60.0)}, merged=frozenset())
    residuals = attribute(plan, blind, 300.0)
    assert [s.id for s in residuals.subgraphs if s.in_plan_us is None] == ["s0", "s1", "s2"]
    assert residuals.parts["sub-graphs"] == pytest.approx(20)
    assert sum(residuals.parts.values()) == pytest.approx(300 - plan.cost_us)


def test_at_other_prices_errors_are_against_these(plan, observed):
    residuals = attribute(plan, observed, 300.0)
    doubled = replace(
        plan,
        subgraphs=tuple(replace(s, cost_us=2 * s.cost_us, source="new") for s in plan.subgraphs),
        boundaries=tuple(replace(b, cost_us=2 * b.cost_us) for b in plan.boundaries),
        values={"sum": replace(plan.values["sum"], value=2 * plan.cost_us)},
    )
    again = predicted_again(residuals, doubled)
    assert again == attribute(doubled, observed, 300.0)
    assert again.predicted_us == doubled.cost_us
    assert sum(again.parts.values()) == pytest.approx(300 - doubled.cost_us)
    assert predicted_again(residuals, plan) == residuals


def test_an_edited_plan_has_no_errors_of_the_one_before(plan, observed):
    first, *others = plan.subgraphs
    edited = replace(first, decision=Decision.parse("cpu:NCHW"))
    residuals = attribute(plan, observed, 300.0)
    assert predicted_again(residuals, replace(plan, subgraphs=(edited, *others))) is None


def test_a_plan_with_residuals_is_a_file(plan, observed, tmp_path):
    whole = replace(plan, residuals=attribute(plan, observed, 300.0))
    whole.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == whole
