"""Small models that once went wrong on one unit or the other: built and verified on each."""

from __future__ import annotations

from itertools import product

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiers import tiered

import layoutsel
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.model import import_model
from layoutsel.units.base import select

AVAILABLE = list(select())
IMAGE = (1, 8, 6, 6)


def network(nodes, inputs, outputs, weights=(), elem=TensorProto.FLOAT, opset=18):
    graph = helper.make_graph(
        [helper.make_node(*node[:3], name=f"n{i}", **node[3]) for i, node in enumerate(nodes)],
        "awkward",
        [helper.make_tensor_value_info(name, elem, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, elem, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in dict(weights).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def weights(dtype="float32"):
    rng = np.random.default_rng(0)
    return {"w": rng.standard_normal((8, 8, 3, 3)).astype(dtype) / 8}


CONV = ("Conv", ["x", "w"], ["c"], {"pads": [1] * 4})
MODELS = {
    "scalar_times_image": network(
        [("Mul", ["x", "s"], ["y"], {})], {"x": IMAGE, "s": []}, ["y"]
    ),
    "scalars_only": network([("Add", ["x", "s"], ["y"], {})], {"x": [], "s": []}, ["y"]),
    "scalar_result": network([("ReduceSum", ["x"], ["y"], {"keepdims": 0})], {"x": IMAGE}, ["y"]),
    "scalar_behind_a_convolution": network(
        [CONV, ("Mul", ["c", "s"], ["y"], {})], {"x": IMAGE, "s": []}, ["y"], weights()
    ),
    "power_of_one_element": network(
        [CONV, ("Relu", ["c"], ["r"], {}), ("Pow", ["r", "e"], ["y"], {})],
        {"x": IMAGE}, ["y"], {**weights(), "e": np.full((1, 1, 1, 1), 2, "float32")},
    ),
    "half_precision": network(
        [CONV, ("Relu", ["c"], ["y"], {})], {"x": IMAGE}, ["y"], weights("float16"), TensorProto.FLOAT16
    ),
    "input_named_self": network([("Relu", ["self"], ["main"], {})], {"self": IMAGE}, ["main"]),
}  # fmt: skip


@pytest.fixture
def on_unit(tmp_path):
    """Compile and verify, with everything on one unit that it accepts."""

    def compile_on(model, unit):
        session = Session.open(model, units=["cpu", unit], threads=2)
        offers = Offers.of(session)
        pins = [
            f"{subgraph}={unit}"
            for subgraph, candidates in offers.candidates.items()
            if unit in {decision.unit for decision in candidates.decisions}
        ]
        return layoutsel.optimize(
            model, units=["cpu", unit], pins=pins, cost="roofline", verify_speed=False, threads=2,
            cache=tmp_path / "measurements.db",
        )  # fmt: skip

    return compile_on


@pytest.mark.parametrize("unit", AVAILABLE)
@pytest.mark.parametrize("name", MODELS)
def test_awkward_model(on_unit, name, unit):
    model = on_unit(MODELS[name], unit)
    inputs = {s.name: np.ones(s.shape, s.dtype) for s in model.inputs}
    results = model(**inputs)
    assert np.isfinite(np.asarray(results, "float64")).all()


ROUNDINGS = ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]
COORDINATES = ["asymmetric", "half_pixel", "align_corners"]


@pytest.mark.parametrize("unit", AVAILABLE)
@pytest.mark.parametrize(
    "case",
    tiered(product(COORDINATES, ROUNDINGS), list(zip(COORDINATES, ROUNDINGS, strict=False))),
    ids="-".join,
)
def test_nearest_resize_keeps_its_rounding(on_unit, case, unit):
    coordinates, rounding = case
    attributes = {"mode": "nearest", "coordinate_transformation_mode": coordinates, "nearest_mode": rounding}  # fmt: skip
    scales = {"s": np.asarray([1, 1, 2, 3], "float32")}
    node = ("Resize", ["x", "", "s"], ["y"], attributes)
    on_unit(network([node], {"x": IMAGE}, ["y"], scales), unit)


def test_model_that_onnxruntime_refuses_is_verified_against_stock_tvm(on_unit, caplog):
    erf = network([("Erf", ["x"], ["y"], {})], {"x": IMAGE}, ["y"], elem=TensorProto.DOUBLE)
    compiled = on_unit(erf, "cpu")
    assert "ONNX Runtime refuses the model" in caplog.text
    assert {check["reference"] for check in compiled.header["checks"]} == {"stock TVM"}


def test_constant_whose_data_lies_beside_the_model(tmp_path):
    value = numpy_helper.from_array(np.arange(4, dtype="float32"), "k")
    model = network(
        [("Constant", [], ["k"], {"value": value}), ("Add", ["x", "k"], ["y"], {})],
        {"x": [4]},
        ["y"],
    )
    onnx.save(
        model, tmp_path / "model.onnx", save_as_external_data=True, location="data.bin",
        size_threshold=0, convert_attribute=True,
    )  # fmt: skip
    assert (tmp_path / "data.bin").exists()
    assert import_model(tmp_path / "model.onnx").inputs[0].shape == (4,)
