"""What cannot be imported is refused with one sentence that says what, where and what to do."""

from __future__ import annotations

import contextlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tvm import relax

from layoutsel.errors import InvalidModel, InvalidShape, LayoutselError, UnsupportedModel
from layoutsel.model import import_model


def network(
    nodes, *, inputs=None, outputs=("y",), initializers=(), domains=(), elem=TensorProto.FLOAT
):
    inputs = {"x": [1, 4]} if inputs is None else inputs
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(name, elem, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        list(initializers),
    )
    opsets = [helper.make_opsetid("", 18), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def relu(**options):
    return network([helper.make_node("Relu", ["x"], ["y"], name="act")], **options)


def weighted():
    """A model whose weight is big enough to cut in two."""
    weight = numpy_helper.from_array(np.ones((4, 4096), "float32"), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    return network([node], initializers=[weight])


def refused(source, error, *fragments, **options):
    with pytest.raises(error) as caught:
        import_model(source, **options)
    message = str(caught.value)
    assert "Traceback" not in message
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message


def test_missing_file(tmp_path):
    refused(tmp_path / "none.onnx", InvalidModel, "none.onnx", "no such file")


def test_directory(tmp_path):
    refused(tmp_path, InvalidModel, "directory", "expected an .onnx file")


def test_empty_file(tmp_path):
    path = tmp_path / "empty.onnx"
    path.write_bytes(b"")
    refused(path, InvalidModel, "empty file")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_truncated_file(tmp_path, keep):
    path = tmp_path / "cut.onnx"
    data = weighted().SerializeToString()
    path.write_bytes(data[: int(len(data) * keep)])
    refused(path, InvalidModel, "cut.onnx")


@pytest.mark.parametrize(
    "data",
    [
        b"PK\x03\x04" + b"zip" * 50,
        b"just some text\n" * 20,
        bytes(range(256)) * 8,
        b"\x00" * 64,
        b"{}",
    ],
)
def test_file_that_is_not_onnx(tmp_path, data):
    path = tmp_path / "other.onnx"
    path.write_bytes(data)
    refused(path, InvalidModel, "other.onnx")


def test_corrupt_bytes_never_give_a_trace(tmp_path):
    data = bytearray(relu().SerializeToString())
    rng = np.random.default_rng(0)
    path = tmp_path / "corrupt.onnx"
    for _ in range(150):
        damaged = bytearray(data)
        for position in rng.integers(0, len(damaged), 3):
            damaged[position] = rng.integers(0, 256)
        path.write_bytes(bytes(damaged))
        with contextlib.suppress(LayoutselError):
            import_model(path)


def test_external_data(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(
        weighted(), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    data = tmp_path / "weights.bin"
    assert import_model(path).inputs[0].shape == (1, 4)
    data.write_bytes(data.read_bytes()[:100])
    refused(path, InvalidModel, "'w'", "weights.bin", "only 100")
    data.unlink()
    refused(path, InvalidModel, "'w'", "weights.bin", "does not exist")


def test_dynamic_dimension_without_value():
    model = relu(inputs={"x": ["batch", 4]})
    refused(model, InvalidShape, "'x'", "(batch, 4)", "--shape x=1,4")


def test_dynamic_dimension_with_value():
    model = relu(inputs={"x": ["batch", 4]})
    imported = import_model(model, shapes={"x": (2, 4)})
    assert imported.inputs[0].shape == imported.outputs[0].shape == (2, 4)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert imported.onnx.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2


def test_symbol_is_shared_between_inputs():
    add = helper.make_node("Add", ["x", "z"], ["y"])
    model = network([add], inputs={"x": ["n", 4], "z": ["n", 4]})
    assert import_model(model, shapes={"x": (3, 4)}).inputs[1].shape == (3, 4)
    refused(model, InvalidShape, "'n'", shapes={"x": (3, 4), "z": (2, 4)})


@pytest.mark.parametrize(
    ("shapes", "fragment"),
    [
        ({"q": (1, 4)}, "no such input; expected one of x"),
        ({"x": (1, 4, 1)}, "got 3 dimensions"),
        ({"x": (1, 5)}, "fixes at 4"),
        ({"x": (0, 4)}, "positive"),
    ],
)
def test_shape_that_does_not_fit(shapes, fragment):
    refused(relu(inputs={"x": ["batch", 4]}), InvalidShape, fragment, shapes=shapes)


def test_unsupported_operator_is_named():
    node = helper.make_node("LSTM", ["x", "x", "x"], ["y"], name="recurrent", hidden_size=4)
    refused(network([node]), UnsupportedModel, "'recurrent'", "LSTM", "ai.onnx")


def test_custom_domain_is_named():
    node = helper.make_node("Fancy", ["x"], ["y"], name="special", domain="my.domain")
    refused(
        network([node], domains=["my.domain"]), UnsupportedModel, "'special'", "Fancy", "my.domain"
    )


def test_standard_name_in_custom_domain_is_refused():
    node = helper.make_node("Relu", ["x"], ["y"], name="odd", domain="my.domain")
    refused(network([node], domains=["my.domain"]), UnsupportedModel, "'odd'", "my.domain")


def test_control_flow_is_named():
    branch = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["b"])],
        "branch",
        [],
        [helper.make_tensor_value_info("b", 1, None)],
    )
    reduce = helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0)
    cast = helper.make_node("Cast", ["s"], ["c"], to=TensorProto.BOOL)
    node = helper.make_node(
        "If", ["c"], ["y"], name="choice", then_branch=branch, else_branch=branch
    )
    refused(network([reduce, cast, node]), UnsupportedModel, "'choice' (If)", "control flow")


def test_strings_are_refused():
    refused(relu(elem=TensorProto.STRING), UnsupportedModel, "'x'", "strings")


def test_result_that_depends_on_data():
    node = helper.make_node("NonZero", ["x"], ["y"], name="where")
    refused(network([node]), UnsupportedModel, "depends on data")


def test_argument_computed_from_data():
    reduce = helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0)
    cast = helper.make_node("Cast", ["m"], ["k"], to=TensorProto.INT64)
    repeat = helper.make_node("Reshape", ["k", "one"], ["shape"])
    node = helper.make_node("Reshape", ["x", "shape"], ["y"], name="view")
    one = numpy_helper.from_array(np.array([1], "int64"), "one")
    model = network([reduce, cast, repeat, node], initializers=[one])
    refused(model, UnsupportedModel, "'view' (Reshape)", "constant")


def test_undefined_tensor():
    node = helper.make_node("Add", ["x", "ghost"], ["y"], name="sum")
    refused(network([node]), InvalidModel, "'sum'", "'ghost'")


def test_unknown_light_model():
    refused("light:nothing", InvalidModel, "resnet50")


@pytest.mark.parametrize("batch", ["", "0", "-1", "two"])
def test_light_model_of_no_batch(batch):
    refused(f"light:squeezenet@{batch}", InvalidModel, f"got batch '{batch}'")


def test_relax_module_without_main():
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1,), "float32"))
    with builder.function("other", [x]):
        builder.emit_func_output(x)
    refused(builder.get(), InvalidModel, "main")


def test_failures_print_nothing(capfd):
    refused(network([helper.make_node("LSTM", ["x", "x", "x"], ["y"], name="r")]), UnsupportedModel)
    node = helper.make_node("Tile", ["x", "x"], ["y"], name="t")
    with pytest.raises(LayoutselError):
        import_model(network([node]))
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
