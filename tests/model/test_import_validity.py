"""Models that contradict the ONNX specification are refused with one line that names the node or the tensor."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from layoutsel.errors import InvalidModel
from layoutsel.model import import_model
from tests.model.graphs import INT64, Input, ints, ones, scales, single

X = Input(1, 8, 6, 6)
N = Input(4, elem=INT64)
W = ones(16, 8, 3, 3)


CONVOLUTIONS = [
    ("Conv", [X, W], {"group": 0}, "group 0; expected at least 1"),
    ("Conv", [X, W], {"group": -1}, "group -1"),
    ("Conv", [X, W], {"group": 3}, "got 8 input channels in 3 groups"),
    ("Conv", [X, ones(3, 4, 3, 3)], {"group": 2}, "got 3 output channels in 2 groups"),
    ("Conv", [X, ones(16, 7, 3, 3)], {}, "got 8 input channels in 1 groups"),
    ("Conv", [X, W, ones(7)], {}, r"got a bias of \[7\]; expected \[16\]"),
    ("Conv", [X, W], {"kernel_shape": [5, 5]}, r"kernel_shape \[5, 5\]; expected \[3, 3\]"),
    ("Conv", [X, W], {"kernel_shape": [3, 3, 3]}, "kernel_shape"),
    ("Conv", [X, W], {"dilations": [0, 1]}, "dilations"),
    ("Conv", [X, W], {"dilations": [-1, 1]}, "dilations"),
    ("Conv", [X, W], {"strides": [0, 0]}, "strides"),
    ("Conv", [X, W], {"strides": [1, 1, 1]}, "strides"),
    ("Conv", [X, W], {"strides": "2,2"}, "strides"),
    ("Conv", [X, W], {"pads": [1, 1, 1]}, "pads"),
    ("Conv", [X, W], {"pads": [-1] * 4}, "pads"),
    ("Conv", [X, W], {"auto_pad": "MAYBE"}, "auto_pad 'MAYBE'; expected one of NOTSET"),
    ("Conv", [X, W], {"auto_pad": b"\xff\xfe"}, "auto_pad"),
    ("Conv", [X, W], {"auto_pad": 3}, "auto_pad"),
    ("Conv", [X, W], {"dilations": [9, 9]}, r"window of \[3, 3\].*room for at least one window"),
    ("Conv", [Input(1, 8, 2, 2), W], {}, "room for at least one window"),
    ("Conv", [Input(1, 8, 2), ones(16, 8, 3)], {"auto_pad": "VALID"}, "room"),
    ("Conv", [X, ones(16, 8, 3)], {}, "spatial"),
    ("Conv", [Input(1, 8), ones(16, 8)], {}, "3 dimensions"),
    ("Conv", [X, ints(*[1] * 8).reshape(1, 8, 1, 1)], {}, "type"),
    ("ConvTranspose", [X, ones(8, 4, 3, 3)], {"group": 3}, "group"),
    ("ConvTranspose", [X, ones(7, 4, 3, 3)], {}, "got 8 input channels; expected 7"),
    ("ConvTranspose", [X, ones(8, 4, 3, 3)], {"pads": [9] * 4}, "room"),
    ("ConvTranspose", [X, ones(8, 4, 3, 3)], {"output_padding": [5, 5]}, "output_padding"),
    ("ConvTranspose", [X, ones(8, 4, 3, 3)], {"output_shape": [0, 4]}, "output_shape"),
    ("ConvTranspose", [X, ones(8, 4, 3, 3), ones(3)], {}, "bias"),
    ("AveragePool", [X], {"kernel_shape": [9, 9]}, "room"),
    ("AveragePool", [X], {"kernel_shape": [2, 2], "pads": [5] * 4}, "pads"),
    ("LpPool", [X], {"kernel_shape": [7, 1]}, "room"),
    ("MaxPool", [X], {"kernel_shape": [7, 1]}, "room"),
    ("MaxPool", [X], {"kernel_shape": [2, 2], "dilations": [7, 7]}, "room"),
    ("MaxPool", [X], {"kernel_shape": [2, 2], "dilations": [0, 0]}, "dilations"),
    ("MaxPool", [X], {"kernel_shape": [0, 0]}, "kernel_shape"),
    ("MaxPool", [X], {"kernel_shape": [2, 2], "auto_pad": "same"}, "auto_pad"),
    ("MaxPool", [X], {"kernel_shape": [2]}, "kernel_shape"),
    ("MaxPool", [X], {}, "kernel_shape"),
    ("GlobalAveragePool", [Input(8)], {}, "expected batch"),
]

PLACES = [
    ("Gather", [X, ints(0, 9)], {"axis": 1}, "got index 9; expected -8 to 7"),
    ("Gather", [X, ints(0, -9)], {"axis": 1}, "got index -9"),
    ("Gather", [X, np.asarray(8)], {"axis": 1}, "got index 8"),
    ("Gather", [X, np.full(5000, 8)], {"axis": 1}, "got index 8"),
    ("Gather", [X, ints(-(1 << 63))], {"axis": 1}, "got index -9223372036854775808"),
    ("Gather", [X, scales(0)], {"axis": 1}, "float"),
    ("Gather", [X, ints(0)], {"axis": 9}, "axis"),
    ("Gather", [X, ints(0)], {"axis": (1 << 63) - 1}, "got axis 9223372036854775807"),
    ("OneHot", [N, np.asarray(5), scales(0, 1)], {"axis": -(1 << 63)}, "got axis -9223"),
    ("Gather", [Input(), ints(0)], {}, "scalar|axis|rank"),
    ("Einsum", [X], {}, "equation"),
    ("Einsum", [X], {"equation": b"\xff"}, "expected UTF-8"),
    ("GatherElements", [X, np.full((1, 8, 6, 6), 8)], {"axis": 1}, "got index 8"),
    ("GatherElements", [X, np.zeros((1, 9, 6, 6), "int64")], {"axis": 2}, "got indices of"),
    ("GatherElements", [X, np.zeros((2, 2), "int64")], {}, "got indices of"),
    ("GatherND", [X, np.asarray([[0, 9]])], {}, "got index 9; expected -8 to 7"),
    ("GatherND", [X, np.asarray([[0, -9]])], {}, "got index -9"),
    ("GatherND", [X, np.asarray([[0] * 5])], {}, "rank"),
    ("ScatterElements", [X, np.full((1, 1, 1, 1), 8), ones(1, 1, 1, 1)], {"axis": 1}, "index 8"),
    ("ScatterElements", [X, np.full((1, 1, 1, 1), 1), ones(1, 1, 2, 1)], {"axis": 1}, "updates"),
    ("ScatterND", [X, np.asarray([[0, 8]]), ones(1, 6, 6)], {}, "got index 8"),
    ("ScatterND", [X, np.asarray([[0, 1]]), ones(1, 5, 6)], {}, r"expected \[1, 6, 6\]"),
    ("Slice", [X, ints(0), ints(4), ints(1), ints(0)], {}, "step"),
    ("Slice", [X, ints(0), ints(4), ints(9)], {}, "axis"),
    ("Slice", [X, ints(0, 0), ints(4)], {}, "starts and ends"),
    ("Transpose", [X], {"perm": [0, 0, 1, 2]}, "perm"),
    ("Transpose", [X], {"perm": [1, 0]}, "perm"),
    ("Transpose", [X], {"perm": [0, -3, 2, 3]}, "perm"),
    ("Concat", [X, X], {"axis": 9}, "axis"),
    ("Concat", [X, ones(1, 8, 5, 6)], {"axis": 1}, "differ"),
    ("Concat", [X, X], {}, "axis"),
    ("Flatten", [X], {"axis": 9}, "axis"),
    ("Softmax", [X], {"axis": 9}, "axis"),
    ("Softmax", [X], {"axis": "1"}, "axis"),
    ("ReduceMean", [X, ints(9)], {}, "axis"),
    ("ArgMax", [X], {"axis": 9}, "axis"),
    ("CumSum", [X, np.asarray(9)], {}, "got axis 9"),
    ("TopK", [X, ints(9)], {"axis": 1}, "k"),
    ("Squeeze", [X, ints(1)], {}, "must be 1"),
    ("Unsqueeze", [X, ints(0, 0)], {}, "more than once"),
    ("LayerNormalization", [X, ones(6)], {"axis": 9}, "axis 9"),
]

SIZES = [
    ("Add", [X, ones(5)], {}, "Incompatible"),
    ("Clip", [X, scales(0, 1)], {}, "scalar"),
    ("DepthToSpace", [X], {"blocksize": 3}, "blocks of 9"),
    ("DepthToSpace", [X], {"blocksize": 0}, "locksize"),
    ("SpaceToDepth", [X], {"blocksize": 4}, "blocks of 4"),
    ("Expand", [X, ints(5)], {}, "Incompatible"),
    ("Expand", [X, ints(-2, 8, 6, 6)], {}, "node"),
    ("Gemm", [Input(2, 8), ones(8, 4), ones(7)], {}, "input 2"),
    ("Gemm", [Input(2, 8), ones(7, 4)], {}, "node"),
    ("GroupNormalization", [X, ones(8), ones(8)], {"num_groups": 3}, "8 channels in 3 groups"),
    ("InstanceNormalization", [X, ones(7), ones(8)], {}, "one per channel"),
    ("BatchNormalization", [X, ones(8), ones(8), ones(8), ones(7)], {}, "7 and 8"),
    ("LayerNormalization", [X, ones(7)], {}, "input 1"),
    ("LRN", [X], {"size": 0}, "size 0"),
    ("LRN", [X], {"size": -3}, "size -3"),
    ("MatMul", [X, ones(7, 3)], {}, "matrix multiplication"),
    ("PRelu", [X, ones(7)], {}, "input 1"),
    ("Pad", [X, ints(1, 1, 1)], {}, "[Pp]ads"),
    ("Pad", [X, ints(*[0] * 4), "", ints(2, 3).reshape(1, 2)], {}, "expected one dimension"),
    ("Pad", [X, ints(0, 0, -4, 0, 0, 0, -4, 0)], {}, "negative"),
    ("Pad", [X, ints(0, 0, 9, 9, 0, 0, 9, 9)], {"mode": "reflect"}, "reflection"),
    ("QuantizeLinear", [X, ones(7), np.zeros(7, "int8")], {"axis": 1}, "got 7 scales"),
    ("QuantizeLinear", [X, ones(8), np.zeros(7, "int8")], {"axis": 1}, "zero point"),
    ("Range", [np.asarray(v) for v in (0, 4, 0)], {}, "delta 0"),
    ("Reshape", [X, ints(-1, -1)], {}, "-1"),
    ("Reshape", [X, ints(17, 17)], {}, "same number of elements"),
    ("Reshape", [X, ints(-1, 7)], {}, "node"),
    ("Reshape", [X, ints(-3, 4)], {}, "-3"),
    ("Resize", [X, "", scales(1, 1, 0, 0)], {}, "positive"),
    ("Resize", [X, "", scales(1, 1, -1, -1)], {}, "positive"),
    ("Resize", [X, "", scales(1, 1, np.nan, np.nan)], {}, "positive"),
    ("Resize", [X, "", scales(1, 2, 2)], {}, "scales"),
    ("Resize", [X, "", scales(1, 1, 2, 2).reshape(2, 2)], {}, r"\[2, 2\]; expected one dimension"),
    ("Resize", [X, "", "", ints(1, 8, 9, 9).reshape(1, 4)], {}, "expected one dimension"),
    ("Resize", [X, "", scales(1, 1, 2, 2), ints(1, 8, 9, 9)], {}, "not both|one of them"),
    ("Tile", [X, ints(2)], {}, "[Rr]epeats"),
    ("Tile", [X, ints(1, -1, 1, 1)], {}, "[Rr]epeats"),
    ("ConstantOfShape", [ints(-1)], {}, "non-negative"),
    ("Where", [np.ones(5, "bool"), X, X], {}, "Incompatible"),
]

ARGUMENTS = [
    ("Relu", [X, X, X], {}, "size 3"),
    ("Add", [X], {}, "size 1"),
    ("BatchNormalization", [X, ones(8), ones(8), ones(8)], {}, "size 4"),
    ("Relu", [X], {"slope": 0.1}, "slope"),
    ("Add", [X, ints(1, 1, 1, 1, 1, 1)], {}, "type"),
    ("Where", [X, X, X], {}, "type"),
    ("Cast", [X], {"to": 99}, "to"),
    ("Cast", [X], {"to": 0}, "type"),
    ("Constant", [], {}, "value"),
    ("Constant", [], {"value_int": 1, "value_float": 1.0}, "value"),
    ("DepthToSpace", [X], {"blocksize": 2, "mode": "X"}, "mode 'X'; expected one of DCR, CRD"),
    ("Pad", [X, ints(*[1] * 8)], {"mode": "mirror"}, "mode 'mirror'"),
    ("Resize", [X, "", scales(1, 1, 2, 2)], {"mode": "area"}, "mode 'area'"),
    ("Resize", [X, "", scales(1, 1, 2, 2)], {"nearest_mode": "up"}, "nearest_mode 'up'"),
    (
        "Resize",
        [X, "", scales(1, 1, 2, 2)],
        {"coordinate_transformation_mode": "centre"},
        "coordinate_transformation_mode 'centre'",
    ),
    ("Mod", [X, scales(2)], {}, "fmod"),
    ("Div", [N, ints(1, 0, 2, 3)], {}, "constant 0"),
    ("Div", [N, np.asarray(0)], {}, "constant 0"),
    ("Mod", [N, ints(0)], {}, "constant 0"),
]


@pytest.mark.parametrize(
    ("op", "operands", "attributes", "said"), [*CONVOLUTIONS, *PLACES, *SIZES, *ARGUMENTS]
)
def test_invalid_node(op, operands, attributes, said):
    opset = 21 if op == "GroupNormalization" else 18
    outputs = 2 if op == "TopK" else 1
    model = single(op, operands, attributes, opset=opset, outputs=outputs)
    with pytest.raises(InvalidModel, match=said) as caught:
        import_model(model)
    message = str(caught.value)
    assert message.startswith(f"single: node 'node' ({op})")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("attributes", "sizes", "outputs", "opset"),
    [
        ({}, ints(5, 5), 2, 18),
        ({}, ints(-2, 10), 2, 18),
        ({}, ints(4, 4), 3, 18),
        ({"num_outputs": 3}, None, 2, 18),
        ({}, None, 3, 13),
        ({"split": [5, 5]}, None, 2, 11),
    ],
)
def test_parts_that_do_not_add_up(attributes, sizes, outputs, opset):
    operands = [X] if sizes is None else [X, sizes]
    model = single("Split", operands, {"axis": 1, **attributes}, outputs=outputs, opset=opset)
    with pytest.raises(InvalidModel, match=r"'node' \(Split\)"):
        import_model(model)


def test_index_that_the_model_computes():
    extra = [helper.make_node("Add", ["i1", "i2"], ["index"])]
    model = single("Gather", [X, ints(4), ints(5)], {"axis": 1}, extra=extra)
    model.graph.node[-1].input[:] = ["i0", "index"]
    with pytest.raises(InvalidModel, match="got index 9"):
        import_model(model)
