"""The entries that tests install as packages, here in this process, and the network that they are tried on."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.registries.outside import PACKAGES

IMAGES = (2, 3, 8, 8)
"""Shape of the network's input."""


def entry(module: str, attribute: str):
    """The entry that a module of :data:`PACKAGES` defines."""
    spec = spec_from_file_location(f"outside_{module}", PACKAGES / f"{module}.py")
    loaded = module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return getattr(loaded, attribute)


def network(images: tuple[int, ...] = IMAGES) -> onnx.ModelProto:
    """Two convolutions with a pooling between them, each a sub-graph, for images of a shape."""
    generator = np.random.default_rng(0)
    weights = {
        name: generator.standard_normal(shape).astype("float32") / scale
        for name, shape, scale in (("v", (32, 3, 3, 3), 5), ("w", (16, 32, 3, 3), 17))
    }
    nodes = [
        helper.make_node("Conv", ["x", "v"], ["a"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("MaxPool", ["b"], ["c"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["c", "w"], ["d"], name="second", pads=[1] * 4),
        helper.make_node("Sigmoid", ["d"], ["y"], name="sigmoid"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, images)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(made)


def write_case(folder: Path) -> None:
    """Write the network as ``model.onnx``, an input as ``x.npy``, ONNX Runtime's result as ``y.npy``."""
    import onnxruntime

    model = network()
    onnx.save(model, folder / "model.onnx")
    images = np.random.default_rng(1).standard_normal(IMAGES).astype("float32")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    np.save(folder / "x.npy", images)
    np.save(folder / "y.npy", session.run(None, {"x": images})[0])
