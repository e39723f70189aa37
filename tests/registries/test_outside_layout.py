"""A layout of another package: planned, built, saved, loaded and run, without a change of ours."""

import json

import numpy as np
import onnx
import pytest

from tests.reference import relative_error
from tests.registries.entries import IMAGES, network, write_case
from tests.registries.outside import BUILD, PACKAGES, RUN, install
from tvm_passes.onednn import plugin as onednn

COMPILE = """
import json, sys
from pathlib import Path
import layoutsel

folder = Path(sys.argv[1])
compiled = layoutsel.optimize(
    folder / "model.onnx", pins=sys.argv[2:], cache=folder / "cache.db", verify_speed=False)
compiled.save(folder / "model.so")
(folder / "plan.json").write_text(json.dumps(compiled.plan))
"""

PRICED = """
import json, sys
from layoutsel.cost.features import NAMES, PricingQuestion, features
from layoutsel.cost.learned import PRETRAINED, LearnedCost, LearnedModel
from layoutsel.cost.model import Question
from tests.learning import convolution, profile
from tvm_passes.decision import Decision

work, machine = convolution(16, 16, 14), profile()
model = LearnedCost(LearnedModel.load(PRETRAINED), machine)
for text in sys.argv[1:]:
    decision = Decision.parse(text)
    row = features(PricingQuestion(work, decision, machine))
    cost = model.subgraphs([Question(work, decision)])[0]
    print(json.dumps({
        "set": [name for name, value in zip(NAMES, row) if name.startswith("layout_") and value],
        "source": cost.source,
        "relative_spread": cost.spread_us / cost.us,
    }))
"""

VERSIONS = """
from layoutsel.compile.versions import all_versions
from layoutsel.cost import scopes
from tvm_passes.decision import Decision

print(all_versions().get("layout.CHWN:code"))
for layout in ("CHWN", "NHWC"):
    scoped = scopes.candidate_scopes("nn.conv2d", Decision(unit="cpu", layout=layout))
    print("layout.CHWN:code" in scopes.within(all_versions(), scoped))
print("layout.CHWN:code" in scopes.within(
    all_versions(), scopes.boundary_scopes("transform", "NCHW", "CHWN")))
"""

SECOND = "onednn:NHWC" if onednn.available() is None else "cpu:NHWC"
"""Decision for the second convolution, to which a pooling in the new layout hands over."""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return install(tmp_path_factory.mktemp("package"), PACKAGES / "chwn.py", {"layouts": "LAYOUT"})


@pytest.fixture(scope="module")
def compiled(package, tmp_path_factory):
    """Folder of a network of which one process compiled two sub-graphs in the new layout."""
    folder = tmp_path_factory.mktemp("compiled")
    write_case(folder)
    package.run(COMPILE, folder, "first=cpu:CHWN", "pool=cpu:CHWN", f"second={SECOND}")
    return folder


def error(folder):
    return relative_error(np.load(folder / "got.npy"), np.load(folder / "y.npy"))


def test_the_plan_says_it_with_prices_of_the_learned_model(compiled):
    plan = json.loads((compiled / "plan.json").read_text())
    chosen = [(one["decision"], one["source"]) for one in plan["subgraphs"]]
    assert chosen == [("cpu:CHWN", "learned"), ("cpu:CHWN", "learned"), (SECOND, "learned")]
    transforms = {
        (one["source"], one["destination"]): one["cost_us"]
        for one in plan["boundaries"]
        if one["kind"] == "transform"
    }
    assert {("NCHW", "CHWN"), ("CHWN", "NHWC")} <= set(transforms)
    assert min(transforms.values()) > 0


@pytest.mark.parametrize("installed", [True, False])
def test_the_saved_model_runs_in_another_process(package, compiled, installed):
    package.run(RUN, compiled, installed=installed)
    assert error(compiled) < 1e-5


def test_the_plan_is_built_again(package, compiled):
    package.run(BUILD, compiled)
    assert error(compiled) < 1e-5


def test_the_plan_is_refused_without_the_package(package, compiled):
    done = package.attempt(BUILD, compiled, installed=False)
    assert done.returncode != 0
    assert "IllegalDecision" in done.stderr
    assert "layout CHWN; expected one of NCHW, NHWC" in done.stderr


def test_no_tensor_that_has_it_is_a_decline_with_the_reason(package, tmp_path):
    onnx.save(network((1, *IMAGES[1:])), tmp_path / "model.onnx")
    done = package.attempt(COMPILE, tmp_path, "first=cpu:CHWN")
    assert "no tensor that has a CHWN form (a batch of one); expected layout NCHW" in done.stderr


def test_the_learned_model_takes_it_for_another_layout(package):
    printed = package.run(PRICED, "cpu:NHWC", "cpu:CHWN")
    known, other = map(json.loads, printed.splitlines())
    assert known["set"] == ["layout_NHWC"]
    assert other["set"] == []
    assert other["source"] == "learned"
    assert other["relative_spread"] > known["relative_spread"]


def test_only_what_is_measured_in_it_depends_on_its_code(package):
    digest, candidate, elsewhere, transform = package.run(VERSIONS).splitlines()
    assert len(digest) == 12
    assert (candidate, elsewhere, transform) == ("True", "False", "True")
    assert package.run(VERSIONS, installed=False).splitlines()[0] == "None"
