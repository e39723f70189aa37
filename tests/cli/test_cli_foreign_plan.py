"""A plan of another machine is refused, and accepted where the user says so."""

from __future__ import annotations

import json

import pytest
from command import refused, run_here, succeed

import layoutsel
from layoutsel.planning.check_fits import PlanMismatch


@pytest.fixture
def foreign(plan_file, tmp_path):
    document = json.loads(plan_file.read_text())
    document["machine"] = "feedface"
    path = tmp_path / "foreign.json"
    path.write_text(json.dumps(document))
    return path


def test_refused_by_the_name_of_the_option(model, foreign, tmp_path):
    line = refused("compile", model, "-o", tmp_path / "m.so", "--plan", foreign)
    assert "another machine: got feedface" in line
    assert "--allow-foreign-plan" in line
    with pytest.raises(PlanMismatch, match="allow_foreign_plan=True"):
        layoutsel.compile_plan(model, foreign)


def test_accepted(model, foreign, tmp_path):
    output = tmp_path / "m.so"
    done = run_here("compile", model, "-o", output, "--plan", foreign, "--allow-foreign-plan")
    assert done.returncode == 0, done.stderr
    assert "made for another machine, feedface" in done.stderr
    assert output.exists()
    assert layoutsel.load(output).plan["machine"] == "feedface"


def test_other_mismatches_stay_errors(model, foreign, tmp_path):
    document = json.loads(foreign.read_text())
    document["model_hash"] = "0" * 64
    foreign.write_text(json.dumps(document))
    with pytest.raises(PlanMismatch, match="another model"):
        layoutsel.compile_plan(model, foreign, allow_foreign_plan=True)


def test_it_needs_a_plan(model, tmp_path):
    line = refused("compile", model, "-o", tmp_path / "m.so", "--allow-foreign-plan")
    assert "--allow-foreign-plan without --plan: expected a plan" in line


def test_a_plan_of_a_version_that_numbered_sub_graphs(model, plan_file, tmp_path):
    text = plan_file.read_text()
    ids = [subgraph["id"] for subgraph in json.loads(text)["subgraphs"]]
    for number, id_ in enumerate(ids):
        text = text.replace(f'"{id_}"', f'"s{number}"').replace(f'"{id_}.', f'"s{number}.')
    old = tmp_path / "old.json"
    old.write_text(text)
    line = refused("compile", model, "-o", tmp_path / "m.so", "--plan", old)
    assert "sub-graph s0, which the model does not have" in line
    assert "as earlier versions did. Plan again with 'layoutsel plan'" in line
    assert "s0" in succeed("explain", old)
