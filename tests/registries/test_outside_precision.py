"""A precision of another package: planned, built, saved, loaded and run, its error as stated."""

import json

import numpy as np
import pytest

from tests.reference import relative_error
from tests.registries.entries import entry, write_case
from tests.registries.outside import BUILD, PACKAGES, RUN, install

NAME = "f16-storage"
HALF = entry("half_storage", "PRECISION")
DECIDED = f"cpu:NCHW:{NAME}"

COMPILE = """
import json, sys
from pathlib import Path
import layoutsel

folder = Path(sys.argv[1])
compiled = layoutsel.optimize(
    folder / "model.onnx", precision=sys.argv[2], pins=sys.argv[3:], cost="roofline",
    cache=folder / "cache.db", verify_speed=False)
compiled.save(folder / "model.so")
(folder / "plan.json").write_text(json.dumps(compiled.plan))
"""

LEARNED = """
import json, sys
from pathlib import Path
import layoutsel

folder = Path(sys.argv[1])
made = layoutsel.plan(
    folder / "model.onnx", precision=sys.argv[2], pins=[sys.argv[3]], measure_budget_s=2.0,
    cache=folder / "learned.db")
print(json.dumps([[str(node.decision), node.cost_us] for node in made.subgraphs]))
"""

FEATURES = """
from layoutsel.cost.features import NAMES, PricingQuestion, features
from tests.learning import convolution, profile
from tvm_passes.decision import Decision

work, machine = convolution(16, 16, 14), profile()
for precision in ("bf16", "f16-storage"):
    decision = Decision(unit="cpu", precision=precision)
    row = dict(zip(NAMES, features(PricingQuestion(work, decision, machine))))
    print([n for n, v in row.items() if n.startswith("precision_") and v], row["stored_in_l2"])
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    module = PACKAGES / "half_storage.py"
    return install(tmp_path_factory.mktemp("package"), module, {"precisions": "PRECISION"})


@pytest.fixture(scope="module")
def compiled(package, tmp_path_factory):
    """Folder of a network of which one process compiled two sub-graphs in the new precision."""
    folder = tmp_path_factory.mktemp("compiled")
    write_case(folder)
    package.run(COMPILE, folder, NAME, f"first={DECIDED}", f"pool={DECIDED}")
    return folder


def error(folder):
    return relative_error(np.load(folder / "got.npy"), np.load(folder / "y.npy"))


def test_the_mode_of_its_name_plans_it(compiled):
    plan = json.loads((compiled / "plan.json").read_text())
    assert plan["precision"] == NAME
    chosen = [one["decision"] for one in plan["subgraphs"]]
    assert chosen[:2] == [DECIDED, DECIDED]
    assert NAME not in chosen[2]  # the last product's rounding would be felt
    ends = {(one["source"], one["destination"]) for one in plan["boundaries"]}
    assert ("NCHW", "NCHW.f16") in ends


@pytest.mark.parametrize("installed", [True, False])
def test_the_saved_model_keeps_the_stated_tolerance(package, compiled, installed):
    package.run(RUN, compiled, installed=installed)
    # Some rounding there is: that of two sub-graphs, damped by the last one.
    assert HALF.local_error / 10 < error(compiled) < HALF.tolerance


def test_the_plan_is_built_again(package, compiled):
    package.run(BUILD, compiled)
    assert HALF.local_error / 10 < error(compiled) < HALF.tolerance


def test_without_the_package_the_mode_is_unknown(package, compiled):
    done = package.attempt(COMPILE, compiled, NAME, installed=False)
    assert f"unknown precision '{NAME}': expected one of f32, f32-grade, bf16, auto" in done.stderr


def test_other_modes_do_not_offer_it(package, compiled):
    done = package.attempt(COMPILE, compiled, "bf16", f"first={DECIDED}")
    assert f"which precision 'bf16' does not offer: expected f32 or bf16; --precision {NAME}" in (
        done.stderr
    )


def test_units_decline_what_they_do_not_compute_in(package, compiled):
    done = package.attempt(COMPILE, compiled, NAME, f"first=onednn:NCHW:{NAME}")
    assert "cannot be honoured" in done.stderr


def test_the_learned_model_refuses_nothing(package, compiled):
    printed = package.run(LEARNED, compiled, NAME, f"first={DECIDED}")
    (decision, cost_us), *_ = json.loads(printed.splitlines()[-1])
    assert decision == DECIDED
    assert cost_us > 0


def test_it_encodes_as_another_precision_of_its_size(package):
    known, other = package.run(FEATURES).splitlines()
    assert known == f"['precision_bf16'] {known.split()[-1]}"
    assert other == f"[] {known.split()[-1]}"
