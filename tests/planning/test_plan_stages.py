"""Stages of plans: made of sub-graphs, checked, and kept in the plan's file."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from layoutsel.planning.check_fits import check_fits
from layoutsel.planning.new_plan import make_plan
from layoutsel.planning.plan import Plan
from layoutsel.planning.solve import solve
from layoutsel.planning.stages import Stage, check_complete, make_stages
from tests.planning.problems import graph_problem, residual_chain
from tvm_passes.errors import IllegalDecision

READS = {"s0": ("input.0",), "s1": ("s0.0", "input.1"), "s2": ("s0.0", "s0.0"), "s3": ("s2.0",)}
RESULTS = ("s1.0", "s3.0", "input.1")
HELD = {"trunk": ("s0",), "a": ("s1",), "b": ("s2", "s3")}


def test_inputs_and_outputs_follow_from_the_sub_graphs():
    trunk, a, b = make_stages(HELD, READS, RESULTS, {"a": "cpu0"})
    assert trunk == Stage(name="trunk", subgraphs=("s0",), inputs=("input.0",), outputs=("s0.0",))
    assert (a.inputs, a.outputs, a.worker) == (("s0.0", "input.1"), ("output.0",), "cpu0")
    # An input that is a result as well comes from the last stage.
    assert b.inputs == ("s0.0", "input.1")
    assert b.outputs == ("output.1", "output.2")


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"trunk": ("s0", "s1", "s2")}, "sub-graph s3 is in no stage"),
        ({**HELD, "c": ("s1",)}, "sub-graph s1 is in stages 'a' and 'c'"),
        ({**HELD, "c": ("s9",)}, "holds sub-graph s9, which the model does not have"),
        ({**HELD, "c": ()}, "stage 'c' holds no sub-graph"),
        ({"a": ("s1",), "trunk": ("s0",), "b": ("s2", "s3")}, "reads s0.0 of the later stage"),
        ({"a b": ("s0", "s1", "s2", "s3")}, "expected a name of letters"),
    ],
)
def test_stages_that_do_not_fit(held, message):
    with pytest.raises(IllegalDecision, match=message):
        make_stages(held, READS, RESULTS)


def test_edited_stages_are_checked():
    stages = make_stages(HELD, READS, RESULTS)
    check_complete(stages, READS, RESULTS)
    edited = (replace(stages[0], outputs=()), *stages[1:])
    with pytest.raises(
        IllegalDecision, match=r"stage 'trunk': got the outputs none; expected s0\.0"
    ):
        check_complete(edited, READS, RESULTS)
    with pytest.raises(IllegalDecision, match="two stages are called 'a'"):
        check_complete((*stages, stages[1]), READS, RESULTS)


@pytest.fixture(scope="module")
def plan():
    problem = graph_problem(residual_chain(2), random.Random(3))
    return make_plan(problem, solve(problem), strategy="joint", machine="m", versions={})


def test_a_plan_keeps_them_in_its_file(plan, tmp_path):
    ids = list(plan.decisions)
    staged = plan.in_stages({"front": ids[:2], "back": ids[2:]}, {"back": "cpu1"})
    staged.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == staged
    check_fits(staged, model_hash=plan.model_hash, ids=ids)
    lost = replace(staged, stages=staged.stages[:1])
    with pytest.raises(IllegalDecision, match="is in no stage"):
        check_fits(lost, model_hash=plan.model_hash, ids=ids)


def test_a_file_without_stages_is_one_stage(plan, tmp_path):
    file = tmp_path / "plan.json"
    plan.save(file)
    assert "stages" not in json.loads(file.read_text())
    assert Plan.load(file) == plan
