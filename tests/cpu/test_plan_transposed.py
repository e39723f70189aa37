"""Transposed convolutions have a kernel on the CPU, with the values of ONNX Runtime."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from reference import TOLERANCE, relative_error, run_onnx

import layoutsel
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session

SIZES = (11, 9)


def model_of(channels, out, kernel, **attributes):
    rng = np.random.default_rng(0)
    sizes = SIZES[: len(kernel)]
    weight = rng.standard_normal((channels, out, *kernel)).astype("float32")
    nodes = [
        helper.make_node("ConvTranspose", ["x", "w", "b"], ["c"], "conv", **attributes),
        helper.make_node("Relu", ["c"], ["y"], "relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "transposed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, channels, *sizes))],
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
        ((8, 5, (2, 2)), dict(strides=[2, 2])),
        ((6, 20, (4, 3)), dict(strides=[2, 1], pads=[1, 1, 1, 1])),
        ((4, 17, (3, 3)), dict(strides=[2, 2], pads=[1, 0, 1, 1], output_padding=[1, 1])),
        ((8, 16, (3, 3)), dict(pads=[2, 2, 2, 2])),
        ((8, 16, (16,)), dict(strides=[8], pads=[4, 4])),
        ((3, 4, (7,)), dict(strides=[3], pads=[5, 6])),
    ],
)
def test_a_transposed_convolution_is_a_convolution_for_each_remainder(sizes, attributes):
    model = model_of(*sizes, **attributes)
    session = Session.open(model, units=("cpu",))
    offers = Offers.of(session)
    assert not any(offered.generic for offered in offers.candidates.values())
    shape = (2, sizes[0], *SIZES[: len(sizes[2])])
    value = np.random.default_rng(1).standard_normal(shape).astype("float32")
    compiled = layoutsel.optimize(
        model, units=("cpu",), cost="roofline", verify=False, verify_speed=False
    )
    (want,) = run_onnx(model, {"x": value})
    assert relative_error(np.asarray(compiled.run_all([value])[0]), want) <= TOLERANCE


def test_many_phases_are_left_to_generic_code():
    """Each is a kernel of its own, which takes time to compile."""
    session = Session.open(model_of(4, 8, (17,), strides=[17]), units=("cpu",))
    offers = Offers.of(session)
    assert any(offered.only_generic for offered in offers.candidates.values())
