"""ONNX operators, as entries of the table refer to them. Importing this does not import ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tvm_passes.deferred import Deferred
from tvm_passes.onnx.facts import NodeFacts, Rule, TensorFacts

MICROSOFT = "com.microsoft"
"""Domain of the operators that ONNX Runtime adds."""

Converter: TypeAlias = Callable[..., Any]
"""Converts a node: (block builder, inputs, attributes, importer's state, opset) → expression."""
Reference: TypeAlias = Callable[..., Any]
"""Computes the result of a node in float64: an array, or a tuple of several.

The arguments are the node's inputs. Its attributes, ``node`` and ``opset`` are keywords.
"""


@dataclass(frozen=True, kw_only=True)
class OnnxOperator:
    """An operator of ONNX, or of another domain: its import, its rules and its reference."""

    name: str
    """Name in its domain, such as ``Conv``."""
    domain: str = ""
    """Domain; empty for ONNX's own."""
    is_imported: bool = True
    """True if nodes are converted to Relax.

    If false, nodes are only checked. The importer folds those with constant inputs only.
    """
    convert: Converter | None = None
    """Converts a node to Relax; None selects TVM's converter of this name."""
    rules: tuple[Rule, ...] = ()
    """Rules that ONNX's own checks omit; a model with a node that breaks one is rejected."""
    infer: Callable[[NodeFacts], Sequence[TensorFacts | None]] | None = None
    """Returns types and shapes of the results, for an operator that ONNX lacks.

    Without it, nodes after this one are checked only when they are converted.
    """
    reference: Reference | None = None
    """Computes the results in float64, in numpy; None selects ONNX's reference evaluator.

    Models with the operator are verified by it if ONNX Runtime lacks the operator.
    """


def onnx(*operators: str | OnnxOperator) -> tuple[OnnxOperator, ...]:
    """Return ONNX operators; a name stands for one of ONNX's own domain, by TVM's converter."""
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
    """Make an ONNX operator whose converter, rules or reference are in :mod:`tvm_passes.onnx`.

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
