"""Convolutions over volumes have a kernel on the CPU, with the values of ONNX Runtime."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from reference import TOLERANCE, relative_error, run_onnx
from tiers import tiered, tiered_rows

import layoutsel
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session

SIZES = (5, 6, 7)


def model_of(channels, out, kernel, *, residual=None, computed=False, batch=2, **attributes):
    """A convolution with bias, an operand of shape `residual` and relu."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((out, channels // attributes.get("group", 1), *kernel))
    initializers = {"w": weight, "b": rng.standard_normal(out)}
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["c"], **attributes)]
    if residual:
        initializers["r"] = rng.standard_normal(residual)
        nodes.append(helper.make_node("Add", ["c", "r"], ["s"]))
    nodes.append(helper.make_node("Relu", [nodes[-1].output[0]], ["y"]))
    inputs = {"x": (batch, channels, *SIZES)}
    if computed:
        inputs["w"] = initializers.pop("w").shape
    graph = helper.make_graph(
        nodes,
        "volumes",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in inputs.items()
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(value.astype("float32"), name)
            for name, value in initializers.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def check(model):
    session = Session.open(model, units=("cpu",))
    offers = Offers.of(session)
    assert not any(offered.generic for offered in offers.candidates.values())
    rng = np.random.default_rng(1)
    feed = {
        one.name: rng.standard_normal(
            [dim.dim_value for dim in one.type.tensor_type.shape.dim]
        ).astype("float32")
        for one in model.graph.input
    }
    compiled = layoutsel.optimize(
        model, units=("cpu",), cost="roofline", verify=False, verify_speed=False
    )
    (want,) = run_onnx(model, feed)
    got = compiled.run_all(list(feed.values()))[0]
    assert relative_error(np.asarray(got), want) <= TOLERANCE


SIZES_AND_ATTRIBUTES = [
    ((4, 20, (3, 3, 3)), dict(pads=[1] * 6)),
    ((8, 16, (3, 1, 2)), dict(strides=[2, 1, 3], pads=[1, 0, 0, 2, 0, 1])),
    ((6, 9, (2, 3, 3)), dict(dilations=[3, 2, 1], pads=[3, 2, 1, 0, 2, 1], group=3)),
    ((5, 17, (1, 3, 3)), dict(pads=[0, 1, 1, 0, 1, 1])),
    ((7, 16, (1, 1, 1)), {}),
    ((3, 16, (1, 1, 1)), dict(strides=[2, 1, 1], pads=[1, 0, 0, 1, 0, 0])),
    ((4, 4, (3, 3, 3)), dict(group=4)),
    ((2, 3, (5, 6, 7)), {}),
]


@pytest.mark.parametrize(("sizes", "attributes"), SIZES_AND_ATTRIBUTES)
def test_a_volume_is_an_image_of_all_its_rows(sizes, attributes):
    check(model_of(*sizes, **attributes))


@pytest.mark.parametrize(
    ("sizes", "attributes"),
    tiered_rows(SIZES_AND_ATTRIBUTES, [SIZES_AND_ATTRIBUTES[number] for number in (2, 5, 6)]),
)
def test_a_volume_with_computed_weights(sizes, attributes):
    """Daily one in groups, one of pixels and one of each channel."""
    check(model_of(*sizes, computed=True, **attributes))


@pytest.mark.parametrize(
    "residual",
    tiered(
        [
            *((2, 16, 5, 6, 7), (16, 1, 1, 1), (5, 1, 1), (6, 7), (1, 16, 1, 6, 1)),
            *((2, 1, 5, 1, 7), (1,)),
        ],
        [(2, 16, 5, 6, 7), (16, 1, 1, 1), (6, 7), (2, 1, 5, 1, 7)],
    ),
)
def test_operands_are_broadcast_along_any_axis_of_volumes(residual):
    check(model_of(4, 16, (3, 3, 3), residual=residual, pads=[1] * 6))
