"""A unit from outside the package, one file: priced, planned, built, saved, loaded and run."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from layoutsel.units.base import UNITS, Unit, register, units
from tests.reference import relative_error
from tests.registries.outside import BUILD, PACKAGES, RUN, install
from tests.small_models import model_of
from tvm_passes.backends import BACKENDS, Backend, lowering_order
from tvm_passes.errors import LayoutselError

IMAGE, RESULT = (1, 16, 8, 8), (1, 24, 4, 4)

COMPILE = """
import json, sys
from pathlib import Path
import layoutsel

folder, cost, *pins = sys.argv[1:]
folder = Path(folder)
compiled = layoutsel.optimize(
    folder / "model.onnx", units=("cpu", "toy"), cost=cost, pins=pins, cache=folder / "cache.db",
    verify_speed=False)
compiled.save(folder / "model.so")
(folder / "plan.json").write_text(json.dumps(compiled.plan))
"""

PRICED = """
import json
from layoutsel.cost.learned import PRETRAINED, LearnedCost, LearnedModel
from layoutsel.cost.model import BoundaryPart, Question
from layoutsel.cost.samples import BoundaryTensor
from tests.learning import convolution, profile
from tvm_passes.decision import Decision

work = convolution(16, 16, 14)
model = LearnedCost(LearnedModel.load(PRETRAINED), profile())
tensor = BoundaryTensor(shape=(1, 16, 14, 14), dtype="float32", bytes=12544)
asked = [Question(work, Decision(unit=unit)) for unit in ("cpu", "toy")]
crossing = BoundaryPart("crossing", tensor, "cpu", "toy")
for cost in (*model.subgraphs(asked), *model.steps([crossing])):
    print(json.dumps([cost.source, cost.us, cost.spread_us / cost.us]))
"""

VERSIONS = """
from layoutsel.compile.versions import all_versions
from layoutsel.cost import scopes
from tvm_passes.decision import Decision

print(all_versions()["toy:code"])
for unit in ("toy", "cpu"):
    print("toy:code" in scopes.within(
        all_versions(), scopes.candidate_scopes("nn.relu", Decision(unit=unit))))
"""


@pytest.fixture
def package(tmp_path):
    return install(tmp_path / "installed", PACKAGES / "toy_unit.py", {"units": "UNIT"})


def write_network(folder):
    """Write a ReLU, a pooling and a convolution, each a sub-graph; inputs, and ONNX Runtime's result."""
    weights = np.random.default_rng(0).standard_normal((24, 16, 1, 1)).astype("float32") / 4
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="first"),
        helper.make_node("MaxPool", ["r"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p", "w"], ["y"], name="conv"),
    ]
    folder.mkdir(exist_ok=True)
    onnx.save(model_of(nodes, {"x": IMAGE}, {"y": RESULT}, {"w": weights}), folder / "model.onnx")
    x = np.random.default_rng(1).standard_normal(IMAGE).astype("float32")
    np.save(folder / "x.npy", x)
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", providers=["CPUExecutionProvider"]
    )
    np.save(folder / "y.npy", session.run(None, {"x": x})[0])
    return folder


@pytest.fixture
def network(tmp_path):
    return write_network(tmp_path / "network")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Folder of a network whose ReLU one process compiled for the new unit, and the package."""
    folder = tmp_path_factory.mktemp("compiled")
    package = install(folder / "installed", PACKAGES / "toy_unit.py", {"units": "UNIT"})
    write_network(folder / "network")
    package.run(COMPILE, folder / "network", "learned", "first=toy:NCHW")
    return package, folder / "network"


def error(folder):
    return relative_error(np.load(folder / "got.npy"), np.load(folder / "y.npy"))


def last_error(done):
    assert done.returncode != 0
    return done.stderr.strip().splitlines()[-1]


def test_the_plan_names_it_with_a_price(compiled):
    plan = json.loads((compiled[1] / "plan.json").read_text())
    relu, _, convolution = plan["subgraphs"]
    assert (relu["decision"], relu["source"]) == ("toy:NCHW", "roofline")
    assert relu["cost_us"] > 0
    assert (convolution["decision"].partition(":")[0], convolution["source"]) == ("cpu", "learned")
    crossings = {(b["source"], b["destination"]) for b in plan["boundaries"]}
    assert ("toy", "cpu") in crossings


def test_the_saved_model_runs_in_another_process(compiled):
    package, folder = compiled
    package.run(RUN, folder)
    assert error(folder) < 1e-5


def test_the_plan_is_built_again(compiled):
    package, folder = compiled
    package.run(BUILD, folder)
    assert error(folder) < 1e-5


def test_without_the_package_the_artifact_names_the_unit(compiled):
    package, folder = compiled
    told = last_error(package.attempt(RUN, folder, installed=False))
    assert "UnitUnavailable" in told
    assert f"{folder / 'model.so'} needs the unit 'toy': no installed package has it" in told
    assert "install the one that the model was compiled with" in told


def test_without_the_package_the_plan_names_the_unit(compiled):
    package, folder = compiled
    told = last_error(package.attempt(BUILD, folder, installed=False))
    assert "IllegalDecision" in told
    assert "is decided as toy:NCHW: got unit 'toy'; expected one of cpu" in told


def test_it_declines_with_its_own_reason(package, network):
    told = last_error(package.attempt(COMPILE, network, "learned", "pool=toy"))
    assert "got nn.max_pool2d; expected nn.relu alone" in told


@pytest.mark.nightly
def test_its_candidates_are_measured(package, network):
    package.run(COMPILE, network, "measured", "first=toy")
    relu, *_ = json.loads((network / "plan.json").read_text())["subgraphs"]
    assert (relu["decision"], relu["source"]) == ("toy:NCHW", "measured")


def test_the_learned_model_takes_the_roofline_for_it(package):
    known, toy, crossing = map(json.loads, package.run(PRICED).splitlines())
    assert (known[0], toy[0], crossing[0]) == ("learned", "roofline", "roofline")
    assert min(toy[1], crossing[1]) > 0
    # Nobody has measured its efficiency.
    assert toy[2] == 1.0


def test_measurements_of_it_depend_on_its_code(package):
    before, own, elsewhere = package.run(VERSIONS).splitlines()
    assert (own, elsewhere) == ("True", "False")
    module = package.site / "toy_unit.py"
    module.write_text(module.read_text().replace("np.maximum(x.numpy(), 0)", "abs(x.numpy())"))
    assert package.run(VERSIONS).splitlines()[0] != before


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("raise RuntimeError('no licence')", "cannot be loaded: got RuntimeError: no licence"),
        ("UNIT = 7", "got 7; expected an object"),
        ("", "cannot be loaded: got AttributeError"),
    ],
    ids=["raises", "wrong type", "absent"],
)
def test_a_broken_entry_is_one_error(tmp_path, network, text, got):
    module = tmp_path / "broken_unit.py"
    module.write_text(text)
    package = install(tmp_path / "broken", module, {"units": "UNIT"})
    told = last_error(package.attempt(COMPILE, network, "learned"))
    assert "entry point 'unit' (broken_unit:UNIT) of group 'layoutsel.units'" in told
    assert got in told
    assert told.endswith("Repair or uninstall the package that has it: broken-unit")


def test_models_of_our_units_run_beside_a_broken_package(tmp_path, package, network):
    package.run(COMPILE, network, "learned", "first=cpu")
    module = tmp_path / "broken_unit.py"
    module.write_text("raise RuntimeError('no licence')")
    install(tmp_path / "broken", module, {"units": "UNIT"}).run(RUN, network)
    assert error(network) < 1e-5


def test_a_unit_registered_by_hand_is_known_to_the_passes(monkeypatch):
    for table in (UNITS, BACKENDS):
        monkeypatch.setattr(table, "_entries", dict(table))
    npu = Unit(
        backend=Backend(name="npu", supports=lambda _function, _decision: None),
        offers=lambda _subgraph: iter(()),
    )
    register(npu)
    assert units()["npu"] is npu
    assert BACKENDS["npu"] is npu.backend
    assert [one.name for one in lowering_order()][-2:] == ["npu", "cpu"]
    with pytest.raises(LayoutselError, match="two units are called 'npu'"):
        register(replace(npu, by_default=False))


def test_our_own_come_in_the_order_of_their_ranks():
    assert list(UNITS)[:5] == list(BACKENDS)[:5] == ["cpu", "onednn", "amx", "cuda", "opencl"]
    assert lowering_order()[-1].name == "cpu"
    for name, unit in UNITS.items():
        assert unit.backend is BACKENDS[name]


def test_reading_the_table_needs_no_tvm():
    script = (
        "import sys; from tvm_passes.backends import BACKENDS; assert len(BACKENDS) > 4; "
        "sys.exit('tvm' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
