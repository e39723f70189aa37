"""Convolutions over one axis have a kernel on the CPU, with the values of ONNX Runtime."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from reference import TOLERANCE, relative_error, run_onnx

import layoutsel
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session


def model_of(channels, out, kernel, **attributes):
    rng = np.random.default_rng(0)
    groups = attributes.get("group", 1)
    weight = rng.standard_normal((out, channels // groups, kernel)).astype("float32")
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv", **attributes),
        helper.make_node("Relu", ["c"], ["y"], "relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "series",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, channels, 37))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(weight, "w"),
            numpy_helper.from_array(rng.standard_normal(out).astype("float32"), "b"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("sizes", "attributes"),
    [
        ((8, 24, 3), dict(pads=[1, 1])),
        ((8, 5, 7), dict(strides=[2], pads=[3, 2])),
        ((12, 18, 3), dict(dilations=[4], pads=[4, 4], group=3)),
        ((16, 16, 5), dict(pads=[4, 0], group=16)),
        ((3, 40, 1), {}),
    ],
)
def test_a_series_is_an_image_of_one_row(sizes, attributes):
    model = model_of(*sizes, **attributes)
    session = Session.open(model, units=("cpu",))
    offers = Offers.of(session)
    assert not any(offered.generic for offered in offers.candidates.values())
    value = np.random.default_rng(1).standard_normal((2, sizes[0], 37)).astype("float32")
    compiled = layoutsel.optimize(
        model, units=("cpu",), cost="roofline", verify=False, verify_speed=False
    )
    (want,) = run_onnx(model, {"x": value})
    got = compiled.run_all([value])[0]
    assert relative_error(np.asarray(got), want) <= TOLERANCE
