"""Operators from outside the package, one file each: imported, planned, built, verified, saved, loaded and run."""

import json

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.registries.outside import PACKAGES, install
from tests.small_models import model_of

IMAGE = (1, 8, 9, 7)

COMPILE = """
import json, sys
import layoutsel
model, artifact, *choices = sys.argv[1:]
compiled = layoutsel.optimize(model, units=("cpu", "onednn"), verify_speed=False, **json.loads(choices[0]))
compiled.save(artifact)
told = {
    "decisions": {entry["id"]: entry["decision"] for entry in compiled.plan["subgraphs"]},
    "checks": compiled.header.get("checks", []),
}
print(json.dumps(told))
"""

RUN = """
import sys
import numpy as np
import layoutsel
artifact, inputs, outputs = sys.argv[1:]
np.save(outputs, layoutsel.load(artifact)(np.load(inputs)))
"""

PRICE = """
import json, sys
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.compile.versions import all_versions
from layoutsel.cost.features import NAMES, PricingQuestion, features
from layoutsel.cost.model import Question

offers = Offers.of(Session.open(sys.argv[1], units=("cpu",)))
answers = {}
for subgraph in offers.session.graph.subgraphs:
    decision = offers.candidates[subgraph.id].decisions[0]
    asked = Question(offers.asked(subgraph, decision), decision)
    cost = offers.costs.learned.subgraphs([asked])[0]
    row = features(PricingQuestion(asked.workload, decision, offers.costs.profile))
    answers[subgraph.anchor] = {
        "us": cost.us,
        "relative": cost.spread_us / cost.us,
        "source": cost.source,
        "flops": subgraph.flops,
        "words": [n for n, value in zip(NAMES, row) if n.startswith("anchor_") and value],
    }
print(json.dumps({"prices": answers, "versions": all_versions()}))
"""


def rotate(tmp_path):
    return install(tmp_path / "rotate", PACKAGES / "rotate.py", {"operators": "OPERATOR"})


def hard_mish(tmp_path):
    return install(tmp_path / "hard_mish", PACKAGES / "hard_mish.py", {"operators": "OPERATOR"})


def rotated(x):
    return np.roll(x, 3, -1)


def hardened(x):
    return x * np.clip(x + 2, 0, 2) / 2


def network(folder, node):
    """A pointwise convolution, an operator of another domain called `node`, and a ReLU."""
    weights = {
        "w": np.random.default_rng(0).standard_normal((8, 8, 1, 1)).astype("float32"),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        node,
        helper.make_node("Relu", ["r"], ["y"], name="relu"),
    ]
    model = model_of(nodes, {"x": IMAGE}, {"y": IMAGE}, weights)
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    file = folder / "network.onnx"
    onnx.save(model, file)
    return file


def rotation(steps=3):
    return helper.make_node("Rotate", ["c"], ["r"], name="turn", domain="com.example", steps=steps)


def hardening():
    return helper.make_node("HardMish", ["c"], ["r"], name="gate", domain="com.example")


CASES = {"rotate": (rotate, rotation, rotated), "hard_mish": (hard_mish, hardening, hardened)}


@pytest.mark.parametrize("case", CASES)
def test_imported_planned_built_verified_saved_loaded_and_run(case, tmp_path):
    make, node, function = CASES[case]
    package, file = make(tmp_path), network(tmp_path, node())
    artifact, inputs, outputs = (tmp_path / name for name in ("m.so", "x.npy", "y.npy"))
    told = json.loads(package.run(COMPILE, file, artifact, "{}").splitlines()[-1])
    assert len(told["decisions"]) == {"rotate": 2, "hard_mish": 1}[case]
    (check,) = told["checks"]
    assert check["reference"] == "float64"
    assert 0 < check["rel_l2_err"] < 1e-6
    x = np.random.default_rng(1).standard_normal(IMAGE).astype("float32")
    np.save(inputs, x)
    weights = onnx.numpy_helper.to_array(onnx.load(file).graph.initializer[0])[:, :, 0, 0]
    expected = np.maximum(function(np.einsum("oc,nchw->nohw", weights, x)), 0)
    # The artifact holds code: whoever runs it needs no package.
    for installed in (True, False):
        package.run(RUN, artifact, inputs, outputs, installed=installed)
        np.testing.assert_allclose(np.load(outputs), expected, rtol=1e-4, atol=1e-5)
        outputs.unlink()


def test_without_the_package_the_node_is_named(tmp_path):
    package, file = rotate(tmp_path), network(tmp_path, rotation())
    done = package.attempt(COMPILE, file, tmp_path / "m.so", "{}", installed=False)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "node 'turn' needs operator Rotate of domain 'com.example'" in last
    assert "install a package that adds an entry for it (layoutsel.operators)" in last


def edited(package, module, old, new):
    file = package.site / f"{module}.py"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    return package


def test_without_a_reference_nothing_is_verified(tmp_path):
    package = edited(rotate(tmp_path), "rotate", "reference=_reference", "reference=None")
    file, artifact = network(tmp_path, rotation()), tmp_path / "m.so"
    done = package.attempt(COMPILE, file, artifact, "{}")
    last = done.stderr.strip().splitlines()[-1]
    assert (
        "VerificationError: the model cannot be verified: node 'turn' has operator Rotate" in last
    )
    assert "Add `reference` to its OnnxOperator" in last
    told = json.loads(package.run(COMPILE, file, artifact, '{"verify": false}').splitlines()[-1])
    assert told["checks"] == []


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("np.roll(x, steps, -1)", "np.roll(x, -steps, -1)", "output 'y' differs from float64"),
        (
            "np.roll(x, steps, -1)",
            "x.missing",
            "Rotate: AttributeError: 'numpy.ndarray' object has no attribute 'missing'",
        ),
        ("np.roll(x, steps, -1)", 'x.astype("float32")', "Rotate gives float32"),
    ],
    ids=["other results", "error", "other type"],
)
def test_a_reference_that_disagrees_or_fails_verifies_nothing(tmp_path, old, new, reason):
    package = edited(rotate(tmp_path), "rotate", old, new)
    done = package.attempt(COMPILE, network(tmp_path, rotation()), tmp_path / "m.so", "{}")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "VerificationError" in last
    assert reason in last


def test_its_rules_and_its_types_are_checked_before_the_import(tmp_path):
    package = rotate(tmp_path)
    done = package.attempt(COMPILE, network(tmp_path, rotation(8)), tmp_path / "m.so", "{}")
    last = done.stderr.strip().splitlines()[-1]
    assert "InvalidModel" in last
    assert "node 'turn' (Rotate) of float[1, 8, 9, 7]: got steps 8; expected 0 to 7" in last


def test_the_learned_model_prices_it_as_other(tmp_path):
    file = network(tmp_path, rotation())
    told = json.loads(rotate(tmp_path).run(PRICE, file).splitlines()[-1])["prices"]
    own, convolution = told["example.rotate"], told["nn.conv2d"]
    assert own["source"] == convolution["source"] == "learned"
    assert (own["words"], convolution["words"]) == ([], ["anchor_nn.conv2d"])
    assert own["us"] > 0
    assert own["relative"] > convolution["relative"]
    # The ReLU after it alone computes.
    assert own["flops"] == 8 * 9 * 7


def test_measurements_of_it_depend_on_its_code(tmp_path):
    package, file = rotate(tmp_path), network(tmp_path, rotation())
    before = json.loads(package.run(PRICE, file).splitlines()[-1])["versions"]
    edited(package, "rotate", "+ extent - steps", "- steps + extent")
    after = json.loads(package.run(PRICE, file).splitlines()[-1])["versions"]
    changed = {name for name in after if after[name] != before[name]}
    scopes = ("cpu.generic", "cpu.tuned", "cuda", "opencl")
    assert changed == {f"{scope}:example.rotate" for scope in scopes}
