"""Real networks are imported as what ONNX Runtime computes, in the normalised form."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import onnx
import pytest
from exported import EXPORTERS, NAMES, dynamic, exported
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from reference import TOLERANCE, before_softmax, random_feeds, relative_error, run_onnx, run_relax
from tiers import tiered

from layoutsel.model import import_model
from layoutsel.zoo.light_models import LIGHT_MODELS, light_model
from tvm_passes.ir import main_bindings, op_name, static_shape, tensor_types
from tvm_passes.normalize import normalize

FORBIDDEN = {"nn.batch_norm", "nn.dropout", "stack", "call_tir", "shape_of", "shape_to_tensor"}
"""Operators that normalisation leaves in none of these networks."""


def operators(module):
    return Counter(op_name(binding.value) for binding in main_bindings(module["main"]))


def check_equal(model, **options):
    imported = import_model(model, **options)
    feeds = random_feeds(imported.inputs)
    want = run_onnx(imported.onnx, feeds)
    got = run_relax(imported.module, list(feeds.values()))
    assert [spec.shape for spec in imported.outputs] == [array.shape for array in want]
    assert [spec.dtype for spec in imported.outputs] == [str(array.dtype) for array in want]
    for one, other in zip(got, want, strict=True):
        assert relative_error(one, other) <= TOLERANCE
    return imported


def check_normalised(imported):
    bindings = main_bindings(imported.module["main"])
    assert not FORBIDDEN & set(operators(imported.module))
    for binding in bindings:
        for ty in tensor_types(binding.value.ty):
            static_shape(ty)
    assert len(imported.module["main"].body.blocks) == 1


@pytest.mark.parametrize("exporter", tiered(EXPORTERS, ("dynamo",)))
@pytest.mark.parametrize("name", NAMES)
def test_exported_network(name, exporter):
    imported = check_equal(exported(name, exporter))
    check_normalised(imported)


@pytest.mark.parametrize("dynamo", [False, True], ids=EXPORTERS)
def test_installed_exporter(dynamo):
    pytest.importorskip("torch", reason="PyTorch is not installed; the files it wrote are tested")
    from models import onnx_model

    check_normalised(check_equal(onnx_model("mobilenet_v3", dynamo=dynamo)))


def test_exported_with_batch_norm_and_dynamic_batch():
    imported = check_equal(dynamic("resnet_dynamic_unfolded"), shapes={"x": (2, 3, 32, 32)})
    assert imported.outputs[0].shape[0] == 2


@pytest.mark.parametrize("name", tiered(LIGHT_MODELS, ("resnet50", "shufflenet", "squeezenet")))
def test_light_model(name):
    imported = import_model(f"light:{name}")
    check_normalised(imported)
    assert [spec.shape for spec in imported.inputs] == [(1, 3, 224, 224)]
    assert imported.inputs[0].name == imported.onnx.graph.input[0].name
    assert imported.outputs[0].name == imported.onnx.graph.output[0].name
    counts = operators(imported.module)
    convolutions = sum(node.op_type == "Conv" for node in imported.onnx.graph.node)
    assert counts["nn.conv2d"] == convolutions


@pytest.mark.parametrize("name", ["shufflenet", "squeezenet"])
def test_light_model_computes_the_same(name):
    check_equal(before_softmax(light_model(name)))


@pytest.mark.parametrize("name", tiered(["shufflenet", "squeezenet"], ("squeezenet",)))
def test_light_model_of_a_larger_batch(name):
    """Every image gets what it gets alone, with the same weights."""
    one, three = (before_softmax(light_model(f"{name}{batch}")) for batch in ("", "@3"))
    check_equal(three)
    images = np.random.default_rng(0).standard_normal((3, 3, 224, 224)).astype("float32")
    source = one.graph.input[0].name
    together = run_onnx(three, {source: images})[0]
    alone = [run_onnx(one, {source: image[None]})[0] for image in images]
    assert relative_error(together, np.concatenate(alone)) < TOLERANCE


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["bvlc_alexnet", "densenet121", "inception_v2"])
def test_larger_light_model_computes_the_same(name):
    check_equal(before_softmax(light_model(name)))


def test_batch_norm_leaves_only_the_bias():
    counts = operators(import_model("light:resnet50").module)
    assert counts == {
        "nn.conv2d": 53, "add": 53 + 16 + 1, "nn.relu": 49, "nn.max_pool2d": 1,
        "nn.avg_pool2d": 1, "reshape": 1, "matmul": 1, "nn.softmax": 1,
    }  # fmt: skip


def test_source_is_not_changed():
    model = light_model("squeezenet")
    before = model.SerializeToString()
    import_model(model)
    assert model.SerializeToString() == before


def test_hash_follows_weights_shapes_and_nothing_else(tmp_path):
    model = dynamic("resnet_dynamic")
    path = tmp_path / "resnet.onnx"
    onnx.save(model, path)
    first = import_model(model, shapes={"x": (1, 3, 32, 32)}).content_hash
    assert import_model(path, shapes={"x": (1, 3, 32, 32)}).content_hash == first
    assert import_model(model, shapes={"x": (2, 3, 32, 32)}).content_hash != first
    other = dynamic("resnet_dynamic_seed1")
    assert import_model(other, shapes={"x": (1, 3, 32, 32)}).content_hash != first


def test_anchors_keep_the_names_of_their_nodes():
    imported = import_model("light:resnet50")
    nodes = {node.name for node in imported.onnx.graph.node}
    anchors = [
        binding.var.name
        for binding in main_bindings(imported.module["main"])
        if op_name(binding.value) in ("nn.conv2d", "matmul")
    ]
    assert len(anchors) == 54
    assert all(imported.origins[name] in nodes for name in anchors)


def test_relax_module_is_normalised():
    module = import_model("light:squeezenet").module
    imported = import_model(module)
    assert imported.onnx is None
    assert imported.inputs[0].shape == (1, 3, 224, 224)
    assert operators(imported.module) == operators(module)
    assert len(imported.content_hash) == 64


@pytest.mark.parametrize("name", ["light:densenet121", "light:shufflenet"])
def test_normalisation_is_idempotent(name):
    module = import_model(name).module
    assert operators(normalize(module)) == operators(module)


def test_initializers_among_the_inputs_are_weights():
    weight = numpy_helper.from_array(np.full((4, 2), 0.5, "float32"), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "old",
        [
            helper.make_tensor_value_info("x", 1, [1, 4]),
            helper.make_tensor_value_info("w", 1, [4, 2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=3)
    imported = check_equal(model)
    assert [spec.name for spec in imported.inputs] == ["x"]


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("op_type", ["Conv", "MaxPool", "AveragePool"])
def test_automatic_padding(op_type, mode):
    weights = (
        [numpy_helper.from_array(np.ones((3, 3, 3, 2), "float32"), "w")]
        if op_type == "Conv"
        else []
    )
    inputs = ["x", "w"] if weights else ["x"]
    node = helper.make_node(
        op_type, inputs, ["y"], auto_pad=mode, kernel_shape=[3, 2], strides=[2, 3]
    )
    graph = helper.make_graph(
        [node], "padded",
        [helper.make_tensor_value_info("x", 1, [1, 3, 10, 11])],
        [helper.make_tensor_value_info("y", 1, None)], weights,
    )  # fmt: skip
    check_equal(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


def one_node(op_type, shapes, opset=18, **attributes):
    """A model of a single operator, all of whose inputs are activations."""
    node = helper.make_node(op_type, list(shapes), ["y"], name="node", **attributes)
    inputs = [helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(
        [node], "single", inputs, [helper.make_tensor_value_info("y", 1, None)]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_local_response_normalisation(size):
    model = one_node("LRN", {"x": [1, 8, 3, 3]}, size=size, alpha=0.5, beta=0.6, bias=1.5)
    imported = import_model(model)
    x = random_feeds(imported.inputs)["x"]
    before, after = (size - 1) // 2, size // 2
    total = np.zeros_like(x)
    for channel in range(8):
        window = x[:, max(0, channel - before) : channel + after + 1]
        total[:, channel] = np.square(window).sum(axis=1)
    want = x / (1.5 + 0.5 / size * total) ** 0.6
    assert relative_error(run_relax(imported.module, [x])[0], want) <= TOLERANCE


@pytest.mark.parametrize(
    ("op_type", "opset"), [("Celu", 12), ("Swish", 24), ("ThresholdedRelu", 10), ("Mish", 18)]
)
def test_function_operator_is_expanded(op_type, opset):
    model = one_node(op_type, {"x": [2, 5]}, opset)
    imported = import_model(model)
    feeds = random_feeds(imported.inputs)
    want = ReferenceEvaluator(model).run(None, feeds)
    assert relative_error(run_relax(imported.module, list(feeds.values()))[0], want[0]) <= TOLERANCE


def test_transposed_convolution_with_output_shape():
    shapes = {"x": [1, 2, 3, 3], "w": [2, 2, 3, 3]}
    check_equal(one_node("ConvTranspose", shapes, strides=[3, 2], output_shape=[10, 8]))


def test_model_from_memory_and_from_file_agree(tmp_path):
    model = exported("vit", "legacy")
    path = tmp_path / "vit.onnx"
    path.write_bytes(io.BytesIO(model.SerializeToString()).getvalue())
    assert operators(import_model(path).module) == operators(import_model(model).module)
    assert import_model(path).name == "vit"
