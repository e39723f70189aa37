"""Never wrong: a compiled model against ONNX Runtime, or against stock TVM, on the same random input."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
    tolerance: float
    """What it may be at most."""
    reference: str


def onnx_softmaxes(model: onnx.ModelProto) -> dict[str, str]:
    """What a final softmax makes and what it reads: logits by output, as ``ExposeLogits`` finds them."""
    maker = {name: node for node in model.graph.node for name in node.output}
    found: dict[str, str] = {}
    for output in model.graph.output:
        node = maker.get(output.name)
        while node is not None and node.op_type in RENAMING:
            node = maker.get(node.input[0])
        if node is not None and node.op_type in SOFTMAX and node.input[0] in maker:
            found[output.name] = node.input[0]
    return found


def onnx_logits(model: onnx.ModelProto) -> list[str]:
    """Names of the tensors that final softmaxes read, each once."""
    return list(dict.fromkeys(onnx_softmaxes(model).values()))


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
    softmaxes: Collection[str] = (),
) -> list[Check]:
    """Compare every output of `model`, and the logits behind them.

    Softmax turns an absolute error of its input into a relative one of its result: behind logits of size m, a relative
    error of ε becomes one of up to m·ε. So the outputs named in `softmaxes` may be off by :data:`TOLERANCE` times the
    largest logit; the logits themselves, like every other output, by :data:`TOLERANCE`.

    Raises
    ------
    VerificationError
        If an error exceeds its tolerance.
    """
    results = model.run_all(inputs)
    count = len(model.outputs)
    if len(expected) < count:
        raise VerificationError(
            f"{reference} gave {len(expected)} outputs; expected the model's {count}"
        )
    # The reference and our passes look for logits each in its own way: without agreement, only outputs are compared.
    exposed = len(results) - count if len(results) == len(expected) else 0
    names = [signature.name for signature in model.outputs]
    names += [f"logits of output {index}" for index in range(exposed)]
    largest = max([1.0, *(float(np.abs(want).max()) for want in expected[count : count + exposed])])
    checks = [
        Check(
            output=name,
            rel_l2_err=rel_l2_err(got, want),
            tolerance=TOLERANCE * (largest if name in softmaxes else 1.0),
            reference=reference,
        )
        for name, got, want in zip(names, results, expected, strict=False)
    ]
    for check in checks:
        if check.rel_l2_err > check.tolerance:
            raise VerificationError(
                f"output {check.output!r} differs from {reference}: relative L2 error "
                f"{check.rel_l2_err:.2e}, expected at most {check.tolerance:.0e}"
            )
    return checks
