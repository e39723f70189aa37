"""Never wrong: a compiled model against ONNX Runtime, or against stock TVM, on the same random input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import tvm
from tvm import relax

from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.samples import rel_l2_err
from tvm_passes.errors import LayoutselError

TOLERANCE = 1e-5
"""Relative L2 error that an f32 result may have."""
SOFTMAX = ("Softmax", "LogSoftmax")
RENAMING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")


class VerificationError(LayoutselError):
    """A compiled model whose results are not those of the reference."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One output compared."""

    output: str
    rel_l2_err: float
    """|got - expected| / |expected|, Euclidean norms over the whole tensor."""
    reference: str


def onnx_logits(model: onnx.ModelProto) -> list[str]:
    """Names of the tensors that final softmaxes read, as ``ExposeLogits`` finds them."""
    maker = {name: node for node in model.graph.node for name in node.output}
    found: dict[str, None] = {}
    for output in model.graph.output:
        node = maker.get(output.name)
        while node is not None and node.op_type in RENAMING:
            node = maker.get(node.input[0])
        if node is not None and node.op_type in SOFTMAX and node.input[0] in maker:
            found[node.input[0]] = None
    return list(found)


def onnxruntime_reference(
    model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """Results of ONNX Runtime, unoptimised, and behind them the logits of final softmaxes."""
    import onnxruntime

    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in onnx_logits(model))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        exposed.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, dict(inputs))


def tvm_reference(module: tvm.IRModule, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Results of stock TVM for a Relax module: slow, and independent of our passes."""
    machine = relax.VirtualMachine(tvm.compile(module, "llvm"), tvm.cpu())
    result = machine["main"](*[tvm.runtime.tensor(value) for value in inputs])
    tensors = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
    return [tensor.numpy() for tensor in tensors]


def compare(
    model: CompiledModel,
    inputs: Sequence[np.ndarray],
    expected: Sequence[np.ndarray],
    reference: str,
) -> list[Check]:
    """Compare every output of `model`, and the logits behind them.

    Raises
    ------
    VerificationError
        If a relative L2 error exceeds :data:`TOLERANCE`.
    """
    results = model.run_all(inputs)
    names = [signature.name for signature in model.outputs]
    names += [f"logits of output {index}" for index in range(len(results) - len(names))]
    checks = [
        Check(output=name, rel_l2_err=rel_l2_err(got, want), reference=reference)
        for name, got, want in zip(names, results, expected, strict=False)
    ]
    for check in checks:
        if check.rel_l2_err > TOLERANCE:
            raise VerificationError(
                f"output {check.output!r} differs from {reference}: relative L2 error "
                f"{check.rel_l2_err:.2e}, expected at most {TOLERANCE:.0e}"
            )
    return checks
