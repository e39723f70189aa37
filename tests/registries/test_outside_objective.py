"""An objective from outside the package, one file: planned for, built, saved, loaded and run."""

import json

import numpy as np
import pytest

from tests.reference import relative_error
from tests.registries.entries import write_case
from tests.registries.outside import BUILD, PACKAGES, RUN, install

COMPILE = """
import json, sys
from pathlib import Path
import layoutsel

folder, objective = Path(sys.argv[1]), sys.argv[2]
compiled = layoutsel.optimize(
    folder / "model.onnx", objective=objective, cache=folder / "cache.db", verify_speed=False)
compiled.save(folder / "model.so")
(folder / "plan.json").write_text(json.dumps(compiled.plan))
"""

PLAN = """
import sys
import layoutsel

found = layoutsel.plan(
    sys.argv[1], objective=sys.argv[2], cost="roofline", pins=["second=cpu:NHWC"])
print(found.values["bytes"].value, found.values["bytes"].bound, found.values["bytes"].unit)
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    module = PACKAGES / "fewest_bytes.py"
    return install(tmp_path_factory.mktemp("package"), module, {"objectives": "OBJECTIVE"})


@pytest.fixture(scope="module")
def compiled(package, tmp_path_factory):
    """Folder of a network that one process compiled for the new objective."""
    folder = tmp_path_factory.mktemp("compiled")
    write_case(folder)
    package.run(COMPILE, folder, "bytes")
    return folder


def error(folder):
    return relative_error(np.load(folder / "got.npy"), np.load(folder / "y.npy"))


def test_the_plan_names_it_with_its_value(compiled):
    plan = json.loads((compiled / "plan.json").read_text())
    assert plan["objective"] == "bytes"
    assert plan["solver"].startswith("bytes by ")
    # Nothing is moved: all sub-graphs stay in the layout of the model's inputs and outputs.
    assert plan["values"]["bytes"] == {"unit": "B", "value": 0.0, "bound": 0.0}
    assert plan["boundaries"] == [] or {b["kind"] for b in plan["boundaries"]} == {"crossing"}
    assert {one["source"] for one in plan["subgraphs"]} == {"learned"}


def test_its_bound_is_proved(package, compiled):
    value, bound, unit = (
        package.run(PLAN, compiled / "model.onnx", "bytes").splitlines()[-1].split()
    )
    assert unit == "B"
    # The input, which is smaller than what lies between, and the output are transformed.
    assert float(value) == float(bound) == 4 * (2 * 3 * 8 * 8 + 2 * 16 * 4 * 4)


@pytest.mark.parametrize("installed", [True, False])
def test_the_saved_model_runs_in_another_process(package, compiled, installed):
    package.run(RUN, compiled, installed=installed)
    assert error(compiled) < 1e-5


@pytest.mark.parametrize("installed", [True, False])
def test_the_plan_is_built_again(package, compiled, installed):
    package.run(BUILD, compiled, installed=installed)
    assert error(compiled) < 1e-5


def test_without_the_package_the_objective_is_unknown(package, compiled):
    done = package.attempt(PLAN, compiled / "model.onnx", "bytes", installed=False)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "ProblemError: unknown objective 'bytes'; expected one of makespan, sum" in last


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("raise RuntimeError('no licence')", "cannot be loaded: got RuntimeError: no licence"),
        ("OBJECTIVE = max", "got <built-in function max>; expected an object of class Objective"),
    ],
    ids=["raises", "wrong type"],
)
def test_a_broken_entry_is_one_error(tmp_path, compiled, text, got):
    module = tmp_path / "broken_objective.py"
    module.write_text(text)
    package = install(tmp_path / "broken", module, {"objectives": "OBJECTIVE"})
    done = package.attempt(PLAN, compiled / "model.onnx", "sum")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "entry point 'objective' (broken_objective:OBJECTIVE) of group" in last
    assert "'layoutsel.objectives'" in last
    assert got in last
    assert last.endswith("the package that has it: broken-objective")
