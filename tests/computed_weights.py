"""Products whose weights are computed at run time: models of every kind, and a way to run them on one unit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import tvm
from onnx import TensorProto, helper, numpy_helper
from tvm import relax

from layoutsel.building.build import generate_code, lower_decisions
from layoutsel.building.functions import Functions
from layoutsel.model import import_model
from tests.reference import run_onnx
from tvm_passes.backends import BACKENDS
from tvm_passes.cancel_transforms import CancelTransforms
from tvm_passes.decision import Decision
from tvm_passes.errors import Decline
from tvm_passes.partition import PartitionSubgraphs


@dataclass(frozen=True, kw_only=True)
class Case:
    """One product with a weight that is an input of the model, and what follows it."""

    operator: str
    source: tuple[int, ...]
    weight: tuple[int, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    epilogue: tuple[str, ...] = ()
    """Of ``bias``, ``relu`` and ``residual``, all operands of which are inputs too."""

    @property
    def spatial(self) -> int:
        """Axes that a window slides over."""
        return len(self.source) - 2

    @property
    def is_matmul(self) -> bool:
        """Whether it is a plain product of matrices."""
        return self.operator == "MatMul"

    def feeds(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Random inputs, the weight scaled so that results are near 1."""
        rng = np.random.default_rng(seed)
        result = infer(self).shape
        shapes = {"x": self.source, "w": self.weight, "b": self.bias, "r": result}
        values = {name: rng.standard_normal(shapes[name]).astype("float32") for name in self.inputs}
        depth = self.source[-1] if self.is_matmul else int(np.prod(self.weight[1:]))
        values["w"] /= np.float32(np.sqrt(depth))
        return values

    @property
    def bias(self) -> tuple[int, ...]:
        """Shape of the bias."""
        if self.is_matmul:
            return self.weight[-1:]
        groups = self.attributes.get("group", 1)
        transposed = self.operator == "ConvTranspose"
        return (self.weight[1] * groups if transposed else self.weight[0],)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the model's inputs."""
        extra = {"bias": "b", "residual": "r"}
        return ("x", "w", *(extra[step] for step in self.epilogue if step in extra))

    def model(self, *, constant: bool = False) -> onnx.ModelProto:
        """The ONNX model; with a `constant` weight, to compare with."""
        with_bias = "bias" in self.epilogue and not self.is_matmul
        read = ["x", "w", "b"] if with_bias else ["x", "w"]
        nodes = [helper.make_node(self.operator, read, ["v0"], **self.attributes)]
        for step in self.epilogue:
            if step == "bias" and with_bias:
                continue
            last, following = f"v{len(nodes) - 1}", f"v{len(nodes)}"
            other = {"bias": ["b"], "residual": ["r"]}.get(step, [])
            name = "Add" if other else "Relu"
            nodes.append(helper.make_node(name, [last, *other], [following]))
        shapes = {"x": self.source, "w": self.weight, "b": self.bias}
        if "residual" in self.epilogue:
            shapes["r"] = infer(self).shape
        graph = helper.make_graph(
            nodes,
            "computed",
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name])
                for name in self.inputs
                if not (constant and name == "w")
            ],
            [helper.make_tensor_value_info(f"v{len(nodes) - 1}", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(self.feeds()["w"], "w")] if constant else (),
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def _conv(source, weight, *epilogue, transposed=False, **attributes):
    operator = "ConvTranspose" if transposed else "Conv"
    return Case(
        operator=operator, source=source, weight=weight, attributes=attributes, epilogue=epilogue
    )


def _matmul(source, weight, *epilogue):
    return Case(operator="MatMul", source=source, weight=weight, epilogue=epilogue)


CONV2D = {
    "3x3": _conv((1, 32, 9, 7), (48, 32, 3, 3), "bias", "relu", pads=[1] * 4),
    "pointwise": _conv((2, 32, 6, 6), (64, 32, 1, 1), "residual", "relu"),
    "strided": _conv((1, 16, 11, 9), (32, 16, 3, 3), "bias", strides=[2, 2], pads=[1, 0, 0, 1]),
    "dilated": _conv((1, 16, 12, 11), (16, 16, 3, 2), dilations=[2, 3], pads=[2, 1, 2, 1]),
    "odd channels": _conv((1, 13, 8, 9), (21, 13, 3, 3), "bias", "relu", pads=[1] * 4),
    "grouped": _conv((1, 32, 8, 8), (64, 16, 3, 3), "bias", "residual", group=2, pads=[1] * 4),
    "ragged groups": _conv((1, 20, 7, 7), (24, 5, 3, 3), "relu", group=4),
    "depthwise": _conv((1, 32, 9, 8), (32, 1, 3, 3), "bias", "relu", group=32, pads=[1] * 4),
    "depthwise 5x5": _conv((2, 20, 9, 9), (20, 1, 5, 5), group=20, strides=[2, 2]),
    "correlation": _conv((1, 32, 10, 10), (1, 32, 4, 4)),
    "depthwise correlation": _conv((1, 32, 10, 10), (32, 1, 4, 4), group=32),
    "one pixel": _conv((1, 32, 4, 4), (64, 32, 4, 4), "relu"),
    "one pixel of each channel": _conv((1, 48, 4, 4), (48, 1, 4, 4), "bias", group=48),
    "depth multiplier": _conv((1, 16, 7, 7), (32, 1, 3, 3), group=16, pads=[1] * 4),
}
OTHER_CONVOLUTIONS = {
    "conv1d": _conv((2, 24, 19), (40, 24, 5), "bias", "relu", pads=[2, 2]),
    "conv1d strided": _conv((1, 16, 20), (32, 16, 3), "residual", strides=[2], dilations=[2]),
    "conv1d grouped": _conv((1, 32, 15), (32, 8, 3), "bias", group=4, pads=[1, 1]),
    "conv1d depthwise": _conv((1, 32, 15), (32, 1, 3), "relu", group=32, pads=[2, 0]),
    "conv3d": _conv((1, 16, 5, 6, 7), (16, 16, 3, 3, 3), "bias", "relu", pads=[1] * 6),
    "conv3d grouped": _conv((1, 16, 4, 6, 5), (32, 8, 2, 3, 1), strides=[1, 2, 1], group=2),
}
TRANSPOSED = {
    "transposed": _conv((1, 16, 6, 5), (16, 24, 3, 3), "bias", "relu", transposed=True),
    "transposed strided": _conv(
        (1, 32, 5, 6), (32, 16, 4, 4), "bias", strides=[2, 2], pads=[1] * 4, transposed=True
    ),
    "transposed ragged": _conv(
        (2, 13, 5, 4), (13, 21, 3, 2), "relu", strides=[2, 3], output_padding=[1, 2],
        transposed=True,
    ),
    "transposed grouped": _conv((1, 32, 5, 5), (32, 8, 3, 3), group=2, transposed=True),
    "transposed dilated": _conv((1, 16, 5, 5), (16, 16, 3, 3), dilations=[2, 1], transposed=True),
    "transposed 1d": _conv((1, 16, 9), (16, 32, 4), "bias", strides=[2], transposed=True),
    "transposed 3d": _conv((1, 16, 3, 4, 4), (16, 16, 2, 3, 3), transposed=True),
}  # fmt: skip
MATMUL = {
    "matrices": _matmul((20, 48), (48, 40), "bias", "relu"),
    "one row": _matmul((1, 64), (64, 200), "bias"),
    "few rows": _matmul((5, 64), (64, 128), "residual"),
    "many rows": _matmul((3, 30, 32), (32, 33), "bias", "relu"),
    "rows of images": _matmul((2, 3, 5, 32), (32, 48), "bias"),
    "batched": _matmul((4, 9, 16), (4, 16, 24), "residual"),
    "one matrix for all": _matmul((4, 9, 16), (1, 16, 24), "relu"),
    "one left for all": _matmul((9, 16), (3, 16, 24)),
    "heads share": _matmul((2, 3, 7, 16), (2, 1, 16, 24)),
    "one row of each": _matmul((16, 1, 32), (16, 32, 17), "relu"),
}
CASES = {**CONV2D, **OTHER_CONVOLUTIONS, **TRANSPOSED, **MATMUL}


def infer(case: Case) -> np.ndarray:
    """The product alone of zeros, by ONNX Runtime: for its shape."""
    bare = Case(
        operator=case.operator,
        source=case.source,
        weight=case.weight,
        attributes=case.attributes,
    )
    zeros = {
        "x": np.zeros(case.source, "float32"),
        "w": np.zeros(case.weight, "float32"),
    }
    return run_onnx(bare.model(), zeros)[0]


def partitioned(model: onnx.ModelProto) -> Functions:
    """The code of the sub-graphs of a model."""
    imported = import_model(model)
    return Functions(PartitionSubgraphs()(CancelTransforms()(imported.module)))


def declines(functions: Functions, decision: Decision) -> list[Decline]:
    """Why the unit of `decision` does not run products so."""
    backend = BACKENDS[decision.unit]
    answers = (backend.supports(function, decision) for function in products(functions))
    return [answer for answer in answers if answer is not None]


_PRODUCTS = {"matmul", *(f"nn.conv{n}d{kind}" for n in (1, 2, 3) for kind in ("", "_transpose"))}


def verdicts(case: Case, unit: str, decisions: Iterable[str], *, constant: bool) -> list[str]:
    """Which of `decisions` a unit takes for a case, and which of them it has a kernel for."""
    functions = partitioned(case.model(constant=constant))
    backend, found = BACKENDS[unit], []
    for function in products(functions):
        for text in decisions if str(function.attrs["layoutsel.anchor"]) in _PRODUCTS else ():
            decision = Decision.parse(f"{unit}:{text}")
            if backend.supports(function, decision) is None:
                found.append(text)
                if "kernel_fallback" not in backend.hints(function, decision):
                    found.append(f"{text} by a kernel")
    return found


def products(functions: Functions) -> list[relax.Function]:
    """The sub-graphs that are more than a copy, such as that of a bias."""
    kinds = ((f, str(f.attrs["layoutsel.anchor"])) for f in functions.values())
    return [function for function, anchor in kinds if anchor != "movement"]


def build_on(functions: Functions, decision: Decision) -> Callable[..., np.ndarray]:
    """A model as a function of arrays or of tensors of TVM.

    Each of its sub-graphs has `decision`, or its unit's plain one where that is declined, or the CPU's.
    """
    choices = (decision, Decision(unit=decision.unit), Decision(unit="cpu"))
    decisions = {
        subgraph: next(d for d in choices if BACKENDS[d.unit].supports(function, d) is None)
        for subgraph, function in functions.items()
    }
    lowered = lower_decisions(functions, decisions)
    assert lowered.decisions == decisions, "one fell back"
    machine = relax.VirtualMachine(generate_code(lowered.module, lowered.target), tvm.cpu())
    weights = tvm.runtime.convert([tvm.runtime.tensor(array) for array in lowered.weights])

    def call(*inputs: np.ndarray | tvm.runtime.Tensor) -> np.ndarray:
        tensors = [tvm.runtime.tensor(i) if isinstance(i, np.ndarray) else i for i in inputs]
        return machine["main"](*tensors, weights).numpy()

    return call


def run_on(functions: Functions, decision: Decision, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
    """The result of a model under :func:`build_on`."""
    return build_on(functions, decision)(*feeds.values())


def random_feeds(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Random inputs of a model."""
    rng = np.random.default_rng(0)
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in model.graph.input
    }
    return {name: rng.standard_normal(shape).astype("float32") for name, shape in shapes.items()}


def hypernetwork(channels: int = 32, groups: int = 1) -> onnx.ModelProto:
    """Two convolutions: filters of the second are a matrix product of what the first sees."""
    rng = np.random.default_rng(0)
    shape = (channels, channels // groups, 3, 3)
    constants = {
        "a": rng.standard_normal((channels, 3, 3, 3)).astype("float32") / 5,
        "m": rng.standard_normal((channels, int(np.prod(shape)))).astype("float32") / 4,
        "shape": np.array(shape, "int64"),
    }
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["f"], pads=[1] * 4, name="features"),
        helper.make_node("GlobalAveragePool", ["f"], ["p"]),
        helper.make_node("Flatten", ["p"], ["row"]),
        helper.make_node("MatMul", ["row", "m"], ["flat"], name="filters"),
        helper.make_node("Reshape", ["flat", "shape"], ["w"]),
        helper.make_node("Conv", ["f", "w"], ["c"], pads=[1] * 4, group=groups, name="dynamic"),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "hypernetwork",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 12, 12))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def tracker() -> onnx.ModelProto:
    """Features of a template, by the same filters as those of the scene, are the kernel that searches the scene."""
    filters = np.random.default_rng(0).standard_normal((32, 3, 3, 3)).astype("float32") / 5
    nodes = [
        helper.make_node("Conv", ["template", "a"], ["t"], name="of_template"),
        helper.make_node("Conv", ["scene", "a"], ["s"], name="of_scene"),
        helper.make_node("Conv", ["s", "t"], ["y"], name="search"),
    ]
    graph = helper.make_graph(
        nodes,
        "tracker",
        [
            helper.make_tensor_value_info("template", TensorProto.FLOAT, (1, 3, 8, 8)),
            helper.make_tensor_value_info("scene", TensorProto.FLOAT, (1, 3, 20, 20)),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(filters, "a")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
