"""Models that contradict the ONNX specification are refused with one line that names the node or the tensor."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from layoutsel.errors import InvalidModel, LayoutselError, UnsupportedModel
from layoutsel.model import import_model
from tests.model.graphs import INT64, Input, ints, nested_functions, ones, single

X = Input(1, 8, 6, 6)
N = Input(4, elem=INT64)
W = ones(16, 8, 3, 3)


def scales(*values):
    return np.asarray(values, "float32")


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


def chain(*nodes, inputs=("x",), outputs=("y",)):
    """Model of (operator, inputs, outputs)."""
    graph = helper.make_graph(
        [
            helper.make_node(op, reads, makes, name=f"n{i}")
            for i, (op, reads, makes) in enumerate(nodes)
        ],
        "chain",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(ones(2, 2), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


STRUCTURES = [
    ([("Add", ["x", "b"], ["a"]), ("Relu", ["a"], ["b"]), ("Neg", ["b"], ["y"])], {}, "cycle"),
    ([("Add", ["x", "y"], ["y"])], {}, "cycle through 'y'"),
    (
        [("Relu", ["x"], ["t"]), ("Neg", ["x"], ["t"]), ("Abs", ["t"], ["y"])],
        {},
        "'t' is defined twice",
    ),
    ([("Relu", ["x"], ["w"]), ("Abs", ["w"], ["y"])], {}, "got a weight and node 'n0'"),
    ([("Relu", ["x"], ["x"]), ("Abs", ["x"], ["y"])], {}, "got an input and node 'n0'"),
    ([("Relu", ["x"], ["y"])], {"inputs": ("x", "x")}, "got an input and an input"),
    ([("Relu", ["x"], ["y"])], {"inputs": ("x", "")}, "an input has no name"),
    ([("Relu", ["x"], ["y"]), ("Relu", ["x"], [])], {}, "'n1' .*no results"),
    ([("Relu", ["x"], ["y"]), ("Relu", ["x"], [""])], {}, "'n1' .*no results"),
    ([("Relu", ["x"], ["y", "z"])], {}, "size 2"),
    ([("Relu", ["ghost"], ["y"])], {}, "'ghost', which nothing defines"),
    ([("Relu", ["x"], ["t"])], {}, "nothing computes the output 'y'"),
    ([("", ["x"], ["y"])], {}, "no operator"),
]


@pytest.mark.parametrize(("nodes", "options", "said"), STRUCTURES)
def test_structure(nodes, options, said):
    with pytest.raises(InvalidModel, match=said) as caught:
        import_model(chain(*nodes, **options))
    assert "\n" not in str(caught.value)


def test_weight_defined_twice():
    model = chain(("Add", ["x", "w"], ["y"]))
    model.graph.initializer.append(model.graph.initializer[0])
    with pytest.raises(InvalidModel, match="got a weight and a weight"):
        import_model(model)


@pytest.mark.parametrize("version", [0, -1, 999, 1 << 62])
def test_operator_set(version):
    model = chain(("Relu", ["x"], ["y"]))
    model.opset_import[0].version = version
    with pytest.raises(
        LayoutselError, match=f"got operator set {version} of domain 'ai.onnx'; expected"
    ):
        import_model(model)


@pytest.mark.parametrize("domain", ["ai.onnx.ml", "com.example"])
def test_operator_set_that_is_not_imported(domain):
    model = chain(("Relu", ["x"], ["y"]))
    model.opset_import[0].domain = domain
    model.opset_import[0].version = 2
    with pytest.raises(
        InvalidModel, match=r"operator of domain 'ai\.onnx'; expected one that the model imports"
    ):
        import_model(model)


def test_operator_set_twice():
    model = chain(("Relu", ["x"], ["y"]))
    model.opset_import.append(helper.make_opsetid("ai.onnx", 11))
    with pytest.raises(InvalidModel, match="got operator sets 18 and 11"):
        import_model(model)


def test_operator_that_was_removed():
    with pytest.raises(InvalidModel, match=r"'node' \(Upsample\).*deprecated"):
        import_model(single("Upsample", [X, scales(1, 1, 2, 2)]))


def test_operator_newer_than_its_set():
    with pytest.raises(InvalidModel, match="got operator set 18; expected 20 or later"):
        import_model(single("Gelu", [X]))


def test_format_version():
    model = chain(("Relu", ["x"], ["y"]))
    model.ir_version = 99
    with pytest.raises(UnsupportedModel, match="IR version 99; expected at most"):
        import_model(model)


TENSORS = [
    ({"data_type": TensorProto.INT64}, "got 16 bytes for int64.2, 2.; expected 32"),
    ({"data_type": 77}, "element type 77"),
    ({"data_type": 0}, "element type 0"),
    ({"raw_data": b"1234567"}, "got 7 bytes for float.2, 2.; expected 16"),
    ({"dims": [-2, 2]}, "non-negative"),
    ({"dims": [1 << 40, 1 << 40]}, "possible size"),
    ({"dims": [3, 2]}, "expected 24"),
    ({"float_data": [1.0]}, "got values in raw_data and float_data"),
]


@pytest.mark.parametrize(("changes", "said"), TENSORS)
@pytest.mark.parametrize("place", ["weight", "attribute"])
def test_stored_tensor(changes, said, place):
    tensor = numpy_helper.from_array(ones(2, 2), "w")
    for name, value in changes.items():
        if isinstance(value, list):
            getattr(tensor, name)[:] = value
        else:
            setattr(tensor, name, value)
    if place == "weight":
        model = chain(("Add", ["x", "w"], ["y"]))
        model.graph.initializer[0].CopyFrom(tensor)
    else:
        model = single("Constant", [], {"value": tensor})
    with pytest.raises(InvalidModel, match=said):
        import_model(model)


KINDS = [
    (lambda attribute: setattr(attribute, "type", 0), "got kind 0"),
    (lambda attribute: setattr(attribute, "type", 7), "got a value in 'i'; expected it in 'ints'"),
    (lambda attribute: attribute.floats.append(1.0), "got a value in 'floats'"),
    (lambda attribute: setattr(attribute, "ref_attr_name", "a"), "got a reference to 'a'"),
    (lambda attribute: setattr(attribute, "name", ""), "without a name"),
]


@pytest.mark.parametrize(("damage", "said"), KINDS)
def test_attribute_of_another_kind(damage, said):
    model = single("Softmax", [X], {"axis": 1})
    damage(model.graph.node[0].attribute[0])
    with pytest.raises(InvalidModel, match=said):
        import_model(model)


def test_graph_in_an_operator_that_takes_none():
    branch = chain(("Relu", ["x"], ["y"])).graph
    with pytest.raises(InvalidModel, match=r"'node' \(Gather\).*then_branch|size 1"):
        import_model(single("Gather", [X], {"then_branch": branch}))


def test_attribute_given_twice():
    model = single("Softmax", [X], {"axis": 1})
    model.graph.node[0].attribute.append(model.graph.node[0].attribute[0])
    with pytest.raises(InvalidModel, match="attribute 'axis' twice"):
        import_model(model)


def test_text_that_is_no_text(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(chain(("Relu", ["x"], ["y"])).SerializeToString().replace(b"n0", b"\xda0"))
    with pytest.raises(InvalidModel, match=r"NodeProto\.name; expected UTF-8"):
        import_model(path)


def test_output_of_another_type():
    with pytest.raises(InvalidModel, match="'y0' is declared as int64; got float32"):
        import_model(single("Relu", [X], elem=INT64))


FUNCTIONS = [
    (lambda model: model.functions[-1].node[0].input.__setitem__(0, "ghost"), "'ghost'"),
    (lambda model: model.functions[-1].output.__setitem__(0, "ghost"), "output 'ghost'"),
    (lambda model: model.functions[0].node[0].output.append("b"), "defined twice"),
    (lambda model: setattr(model.functions[0].opset_import[0], "version", 999), "set 999"),
    (lambda model: model.functions.append(model.functions[0]), "two functions of one name"),
    (lambda model: model.functions[1].node[0].input.extend(["a", "a"]), "size 3"),
    (lambda model: model.graph.node[0].input.append("x"), "node|functions"),
]


@pytest.mark.parametrize(("damage", "said"), FUNCTIONS)
def test_functions(damage, said):
    model = nested_functions(2, 1)
    damage(model)
    with pytest.raises(LayoutselError, match=said) as caught:
        import_model(model)
    assert "\n" not in str(caught.value)


def test_function_that_calls_itself():
    model = nested_functions(2, 1)
    model.functions[1].node[0].op_type, model.functions[1].node[0].domain = "f0", "local"
    with pytest.raises(InvalidModel, match="'f0' of domain 'local' calls itself"):
        import_model(model)


def test_nodes_in_any_order():
    model = chain(("Neg", ["a"], ["y"]), ("Relu", ["x"], ["a"]))
    assert import_model(model).outputs[0].shape == (2, 2)


def test_stale_notes_on_shapes_do_not_count():
    model = chain(("Relu", ["x"], ["a"]), ("Shape", ["a"], ["s"]), ("Reshape", ["a", "s"], ["y"]))
    model.graph.value_info.append(helper.make_tensor_value_info("a", 1, [4, 1]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, [1, 4]))
    assert import_model(model).outputs[0].shape == (2, 2)


@pytest.mark.parametrize("largest", [0, 1])
def test_largest_in_any_order(largest):
    attributes = {"sorted": 0, "axis": 1, "largest": largest}
    model = single("TopK", [X, ints(3)], attributes, outputs=2)
    imported = import_model(model)
    assert [value.shape for value in imported.outputs] == [(1, 3, 6, 6)] * 2
    # The reference is given the same order, and the caller's model stays as it was.
    assert helper.get_node_attr_value(imported.onnx.graph.node[0], "sorted") == 1
    assert helper.get_node_attr_value(model.graph.node[0], "sorted") == 0


def test_sound_models_at_the_edge():
    import_model(single("Gather", [X, ints(-8, 7)], {"axis": 1}))
    import_model(single("Conv", [X, W], {"dilations": [2, 2], "pads": [0] * 4}))
    import_model(single("MaxPool", [X], {"kernel_shape": [6, 6]}))
    import_model(single("AveragePool", [X], {"kernel_shape": [3, 3], "pads": [2] * 4}))
    import_model(single("Resize", [X, np.zeros(0, "float32"), scales(1, 1, 2, 2)]))
    import_model(single("Div", [X, scales(0)]))
    import_model(single("Clip", [X, scales(0), scales(6)]))
    import_model(single("GroupNormalization", [X, ones(2), ones(2)], {"num_groups": 2}))
    import_model(single("LayerNormalization", [X, ones(6)], opset=12))
