"""Graphs, weights, attributes and functions that contradict the ONNX specification are refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from layoutsel.errors import InvalidModel, LayoutselError, UnsupportedModel
from layoutsel.model import import_model
from tests.model.graphs import INT64, Input, ints, nested_functions, ones, scales, single

X = Input(1, 8, 6, 6)
N = Input(4, elem=INT64)
W = ones(16, 8, 3, 3)


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
