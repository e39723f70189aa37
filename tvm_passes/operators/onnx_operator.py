"""An operator of ONNX, as entries of the table name it. Importing this does not import ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tvm_passes.deferred import Deferred
from tvm_passes.onnx.facts import NodeFacts, Rule, TensorFacts

MICROSOFT = "com.microsoft"
"""Domain of the operators that ONNX Runtime adds."""

Converter: TypeAlias = Callable[..., Any]
"""(block builder, inputs, attributes, state of TVM's importer, operator set) → Relax expression."""
Reference: TypeAlias = Callable[..., Any]
"""Results of a node from its inputs and, as keywords, its attributes, ``node`` and ``opset``: an
array, or a tuple of several. Floats are float64."""


@dataclass(frozen=True, kw_only=True)
class OnnxOperator:
    """An operator of ONNX, or of another domain: its import, its rules and its reference."""

    name: str
    """Name in its domain, such as ``Conv``."""
    domain: str = ""
    """Domain; empty for ONNX's own."""
    is_imported: bool = True
    """True if nodes are converted to Relax. False for an operator that is only checked, and folded
    where all its inputs are constants."""
    convert: Converter | None = None
    """Conversion of a node to Relax; None: by TVM's converter of this name."""
    rules: tuple[Rule, ...] = ()
    """Rules that ONNX's own checks leave out; a model with a node that breaks one is refused."""
    infer: Callable[[NodeFacts], Sequence[TensorFacts | None]] | None = None
    """Types and shapes of the results, for an operator that ONNX lacks. Without it, nodes after
    this one are checked when they are converted.
    """
    reference: Reference | None = None
    """Results in float64, in numpy; None: those of ONNX's reference evaluator. A model is verified
    by it where ONNX Runtime lacks the operator.
    """


def onnx(*operators: str | OnnxOperator) -> tuple[OnnxOperator, ...]:
    """Operators of ONNX; TVM's importer converts those of its own domain that are only named."""
    return tuple(
        one if isinstance(one, OnnxOperator) else OnnxOperator(name=one) for one in operators
    )


def own(
    name: str,
    converter: str = "",
    *,
    domain: str = "",
    rules: tuple[Rule, ...] = (),
    exact: str = "",
) -> OnnxOperator:
    """Operator of ONNX with code of :mod:`tvm_passes.onnx`.

    Parameters
    ----------
    converter
        ``module:function`` of the converter; empty for TVM's.
    rules
        Rules of its nodes.
    exact
        Function of :mod:`tvm_passes.onnx.exact` that is its reference; empty for ONNX's.
    """
    return OnnxOperator(
        name=name,
        domain=domain,
        convert=Deferred(f"tvm_passes.onnx.{converter}") if converter else None,
        rules=rules,
        reference=Deferred(f"tvm_passes.onnx.exact:{exact}") if exact else None,
    )
