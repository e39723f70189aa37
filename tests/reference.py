"""Run models through ONNX Runtime and through stock TVM, and compare: shared by all tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import tvm
import tvm_ffi
from tvm import relax

TOLERANCE = 1e-5
"""Relative L2 error between two orders of summation in f32."""
STOCK = tvm.target.Target({"kind": "llvm", "opt-level": 0})
"""Target of TVM's own code: LLVM takes longer to optimise a small module than the module to run."""


def random_feeds(inputs: Sequence, seed: int = 0) -> dict[str, np.ndarray]:
    """Random values for the inputs (``TensorSpec``) of a model; integers are 0 or 1, valid for any table."""
    rng = np.random.default_rng(seed)
    return {
        spec.name: rng.standard_normal(spec.shape).astype(spec.dtype)
        if spec.dtype.startswith("float")
        else rng.integers(0, 2, spec.shape).astype(spec.dtype)
        for spec in inputs
    }


def before_softmax(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` without a final softmax, which saturates on random weights and would hide errors."""
    last = model.graph.node[-1]
    if last.op_type != "Softmax":
        return model
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    del cut.graph.node[-1]
    cut.graph.output[0].name = last.input[0]
    cut.graph.output[0].type.tensor_type.ClearField("shape")
    return cut


def run_onnx(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Outputs of `model` under ONNX Runtime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1  # idle threads spin, and the tests share the cores
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, dict(feeds))


_known: dict[tuple[Any, ...], list[np.ndarray]] = {}
"""References by module, weights included, and inputs: many decisions are compared with the same ones."""


def run_relax(module: tvm.IRModule, values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Outputs of `main` under stock TVM, unscheduled: for small models. Each is computed once."""
    inputs = tuple((value.shape, str(value.dtype), value.tobytes()) for value in values)
    key = (tvm_ffi.StructuralKey(module), inputs)
    if key not in _known:
        _known[key] = _run_relax(module, values)
    return [result.copy() for result in _known[key]]


def stock_machine(module: tvm.IRModule, **options: Any) -> relax.VirtualMachine:
    """Compile a module with TVM's own passes, or those in `options`."""
    # The kernels' checks of their arguments are half of the code; the machine has made the arguments itself.
    with tvm.transform.PassContext(config={"tirx.disable_assert": True}):
        return relax.VirtualMachine(tvm.compile(module, STOCK, **options), tvm.cpu())


def _run_relax(module: tvm.IRModule, values: Sequence[np.ndarray]) -> list[np.ndarray]:
    machine = stock_machine(module)
    result = machine["main"](*[tvm.runtime.tensor(value) for value in values])
    tensors = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
    return [tensor.numpy() for tensor in tensors]


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    """L2 norm of the difference over that of `want`; shapes must agree."""
    assert got.shape == want.shape
    difference = np.linalg.norm(got.astype("float64") - want.astype("float64"))
    return float(difference / max(np.linalg.norm(want.astype("float64")), 1e-30))
