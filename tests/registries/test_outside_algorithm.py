"""An algorithm from outside the package, one file: priced, planned, built, saved, loaded and run."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from tests.registries.outside import PACKAGES, install
from tests.small_models import model_of

IMAGE, RESULT = (1, 24, 9, 7), (1, 40, 9, 7)

COMPILE = """
import json, sys
import layoutsel
model, artifact, pin = sys.argv[1:]
compiled = layoutsel.optimize(model, units=("cpu",), pins=[pin], verify_speed=False)
compiled.save(artifact)
print(json.dumps([entry["decision"] for entry in compiled.plan["subgraphs"]]))
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
import layoutsel
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.compile.versions import all_versions
from layoutsel.cost import scopes
from layoutsel.cost.features import NAMES, PricingQuestion, features
from layoutsel.cost.model import Question

offers = Offers.of(Session.open(sys.argv[1], units=("cpu",)))
(subgraph,) = (one for one in offers.session.graph.subgraphs if one.anchor == "nn.conv2d")
decisions = {str(d): d for d in offers.candidates[subgraph.id].decisions}
answers = {}
for text, decision in decisions.items():
    asked = Question(offers.asked(subgraph, decision), decision)
    cost = offers.costs.learned.subgraphs([asked])[0]
    row = features(PricingQuestion(asked.workload, decision, offers.costs.profile))
    answers[text] = {
        "us": cost.us,
        "relative": cost.spread_us / cost.us,
        "source": cost.source,
        "score": offers.costs.roofline.subgraphs([asked])[0].us,
        "words": [n for n, value in zip(NAMES, row) if n.startswith("algorithm_") and value],
        "scopes": sorted(scopes.candidate_scopes("nn.conv2d", decision)),
    }
print(json.dumps({"prices": answers, "versions": all_versions()}))
"""


@pytest.fixture
def package(tmp_path):
    return install(tmp_path / "installed", PACKAGES / "dots.py", {"algorithms": "ALGORITHM"})


@pytest.fixture
def network(tmp_path):
    """A pointwise convolution with a bias and ReLU."""
    generator = np.random.default_rng(0)
    weights = {
        "w": generator.standard_normal((40, 24, 1, 1)).astype("float32"),
        "b": generator.standard_normal(40).astype("float32"),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["y"], name="relu"),
    ]
    file = tmp_path / "network.onnx"
    onnx.save(model_of(nodes, {"x": IMAGE}, {"y": RESULT}, weights), file)
    return file


def test_planned_built_saved_loaded_and_run(package, network, tmp_path):
    artifact, inputs, outputs = (tmp_path / name for name in ("m.so", "x.npy", "y.npy"))
    pin = "conv=cpu:NCHW:f32:dots"
    decisions = json.loads(package.run(COMPILE, network, artifact, pin).splitlines()[-1])
    assert decisions == ["cpu:NCHW:f32:dots"]
    x = np.random.default_rng(1).standard_normal(IMAGE).astype("float32")
    np.save(inputs, x)
    (expected,) = onnxruntime.InferenceSession(str(network)).run(None, {"x": x})
    # The artifact holds code: whoever runs it needs no package.
    for installed in (True, False):
        package.run(RUN, artifact, inputs, outputs, installed=installed)
        np.testing.assert_allclose(np.load(outputs), expected, rtol=1e-5, atol=1e-5)
        outputs.unlink()


def test_the_learned_model_prices_it_as_other(package, network):
    told = json.loads(package.run(PRICE, network).splitlines()[-1])
    dots, direct = (told["prices"][f"cpu:NCHW{end}"] for end in (":f32:dots", ""))
    assert dots["source"] == direct["source"] == "learned"
    assert (dots["words"], direct["words"]) == ([], ["algorithm_direct"])
    assert dots["us"] > 0
    assert dots["relative"] > direct["relative"]
    # The prior is its own: an eighth of the usual rate.
    assert dots["score"] > direct["score"]


def test_measurements_of_it_depend_on_its_code(package, network):
    told = json.loads(package.run(PRICE, network).splitlines()[-1])
    scopes = set(told["prices"]["cpu:NCHW:f32:dots"]["scopes"])
    assert scopes == {"cpu", "cpu.dots", "layout.NCHW", "precision.f32"}
    before = told["versions"]["cpu.dots:dots"]
    module = package.site / "dots.py"
    module.write_text(module.read_text().replace("total.zero()", "total.set(total.value * 0)"))
    after = json.loads(package.run(PRICE, network).splitlines()[-1])["versions"]
    assert {name for name in after if after[name] != told["versions"].get(name)} == {
        "cpu.dots:dots"
    }
    assert after["cpu.dots:dots"] != before


def test_without_the_package_the_pin_is_declined(package, network, tmp_path):
    pin = "conv=cpu:NCHW:f32:dots"
    done = package.attempt(COMPILE, network, tmp_path / "m.so", pin, installed=False)
    assert done.returncode != 0
    assert "no unit offers it" in done.stderr
