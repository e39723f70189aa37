"""The use of an input is read off its consumers: masks, indices with their sizes, positions; else plain numbers."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from layoutsel.device.signature import Signature
from layoutsel.model.input_use import InputUse, uses_of
from layoutsel.references.drawn_inputs import drawn_inputs

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
LEAST = float(np.finfo(np.float32).min)
CONSTANTS = {
    "one": np.float32(1),
    "least": np.float32(LEAST),
    "axes": np.array([1, 2]),
    "table": np.zeros((30, 8), np.float32),
    "w": np.zeros((6, 6), np.float32),
    "two": np.array([0, 1]),
    "frequencies": np.zeros((1, 4), np.float32),
    "last": np.array([-1]),
}


def node(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def uses(nodes, **inputs):
    values = [
        helper.make_tensor_value_info(name, *(kind_and_shape))
        for name, kind_and_shape in inputs.items()
    ]
    out = helper.make_tensor_value_info("out", TensorProto.UNDEFINED, None)
    constants = [numpy_helper.from_array(np.asarray(v), k) for k, v in CONSTANTS.items()]
    graph = helper.make_graph(nodes, "g", values, [out], constants)
    return uses_of(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


ATTENTION = [
    node("MatMul", "x w", "q"),
    node("Transpose", "x", "k", perm=[0, 1, 3, 2]),
    node("MatMul", "q k", "scores"),
    node("Add", "scores added", "masked"),
    node("Softmax", "masked", "p"),
]
X = (FLOAT, [1, 2, 6, 6])


def test_an_additive_mask():
    nodes = [node("Unsqueeze", "mask axes", "added"), *ATTENTION]
    assert uses(nodes, x=X, mask=(FLOAT, [1, 6])) == {
        "x": InputUse(),
        "mask": InputUse(kind="added"),
    }


@pytest.mark.parametrize("kind", [INT64, BOOL, FLOAT])
def test_a_mask_that_is_made_additive(kind):
    nodes = [
        node("Unsqueeze", "mask axes", "wide"),
        node("Cast", "wide", "number", to=FLOAT),
        node("Sub", "one number", "masked_out"),
        node("Mul", "masked_out least", "added"),
        *ATTENTION,
    ]
    assert uses(nodes, x=X, mask=(kind, [1, 6]))["mask"] == InputUse(kind="kept")


def test_a_mask_that_chooses():
    nodes = [
        node("Unsqueeze", "mask axes", "wide"),
        node("Cast", "wide", "condition", to=BOOL),
        node("Where", "condition x least", "out"),
    ]
    assert uses(nodes, x=X, mask=(INT64, [1, 6])) == {
        "x": InputUse(),
        "mask": InputUse(kind="kept"),
    }


def test_indices_have_the_size_of_their_axis():
    nodes = [
        node("Cast", "ids", "wide", to=INT64),
        node("Gather", "table wide", "rows"),
        node("Gather", "table position_ids", "placed"),
        node("GatherElements", "x chosen", "out", axis=2),
        node("Softmax", "x", "p"),
    ]
    ids = (TensorProto.INT32, [1, 6])
    found = uses(nodes, x=X, ids=ids, position_ids=(INT64, [1, 6]), chosen=(INT64, [1, 2, 6, 6]))
    assert found["ids"] == InputUse(kind="indices", size=30)
    assert found["position_ids"] == InputUse(kind="positions", size=30)
    assert found["chosen"] == InputUse(kind="indices", size=6)
    assert found["x"] == InputUse()


def test_positions_of_angles():
    nodes = [
        node("Cast", "where", "number", to=FLOAT),
        node("Unsqueeze", "number last", "column"),
        node("MatMul", "column frequencies", "angles"),
        node("Sin", "angles", "out"),
    ]
    assert uses(nodes, where=(INT64, [1, 6]))["where"].kind == "positions"


def test_an_image_that_is_compared_or_added_to_itself_is_none_of_them():
    nodes = [
        node("Greater", "x one", "large"),
        node("Where", "large x one", "y"),
        node("MatMul", "x w", "other"),
        node("Add", "x other", "sum"),
        node("Softmax", "sum", "out"),
    ]
    assert uses(nodes, x=X) == {"x": InputUse()}


def draw(kind, shape, dtype, size=None, *, extreme=False):
    (value,) = drawn_inputs(
        [Signature(name="v", shape=shape, dtype=dtype)],
        {"v": InputUse(kind=kind, size=size)},
        extreme=extreme,
    )
    assert (value.shape, value.dtype) == (shape, dtype)
    return value


def test_masks_keep_something_of_each_row_and_nothing_of_one_where_extreme():
    for dtype in ("int64", "bool", "float32"):
        assert draw("kept", (50, 3), dtype).any(axis=-1).all()
        assert not draw("kept", (50, 3), dtype, extreme=True)[-1].any()
    added = draw("added", (50, 5), "float32")
    assert (added == 0).any(axis=-1).all()
    assert set(np.unique(added)) == {LEAST, -1e4, 0}
    added = draw("added", (50, 5), "float32", extreme=True)
    assert (added[-1] == LEAST).all()
    assert np.isneginf(added).any()
    assert not np.isneginf(added).all(axis=-1).any()


def test_indices_fill_their_range_and_positions_count():
    values = draw("indices", (1000,), "int32", 7)
    assert set(values) == set(range(7))
    assert set(draw("indices", (1000,), "int64", 7, extreme=True)) == {0, 6}
    assert list(draw("positions", (2, 4), "int64", 3)[1]) == [0, 1, 2, 0]


def test_draws_are_the_same_each_time_and_numbers_are_normal():
    first, second = (draw("numbers", (4, 100), "float32") for _ in range(2))
    assert np.array_equal(first, second)
    assert abs(first.std() - 1) < 0.1
    extreme = draw("numbers", (4, 100), "float32", extreme=True)
    assert (np.abs(extreme).max(), (extreme == 0).any()) == (1e4, True)
