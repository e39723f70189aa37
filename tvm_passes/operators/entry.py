"""An entry of the table of operators, and its parts. Importing this does not import TVM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias

from tvm_passes.operators.flops import FlopCount, one_per_result
from tvm_passes.operators.onnx_operator import OnnxOperator

if TYPE_CHECKING:
    import numpy as np


class Role(Enum):
    """Role of an operator when sub-graphs are formed."""

    ELEMENTWISE = "elementwise"
    """Joins the sub-graph of the anchor before it, whose kernels must then know the operator.

    Without an anchor before them, neighbouring element-wise operators form a sub-graph.
    """
    MOVEMENT = "movement"
    """Forms a sub-graph with the movements that follow it; each copies elements at most."""
    ANCHOR = "anchor"
    """Starts a sub-graph; this is also the role of every operator without an entry."""
    COMPOSITION = "composition"
    """An ONNX operator that imports as several other operators; no module contains it."""


class Trait(Enum):
    """Property of an operator that passes or cost models query."""

    AVERAGES = "averages"
    """It averages its operand, so that independent rounding errors partly cancel."""
    BROADCASTS = "broadcasts"
    """It combines several operands element by element, with broadcasting."""
    COMMUTES_WITH_QUANTIZATION = "commutes with quantization"
    """It yields the same integers before and after a quantisation with one scale."""
    KEEPS_ELEMENTS = "keeps elements"
    """It computes nothing: all elements of its result are elements of its operands."""
    MULTIPLIES = "multiplies"
    """It computes sums of products."""
    NORMALISES = "normalises"
    """It amplifies errors of its operand, or sums squares of its operand."""
    QUANTIZES = "quantizes"
    """It converts between real numbers and the integers that represent them."""
    READS_LOGITS = "reads logits"
    """Its result saturates, which hides errors of its operand, the logits."""
    READS_ROWS = "reads rows"
    """It reads only as many elements of its weights as its result has, like a table look-up."""
    RENAMES = "renames"
    """It changes only the shape of its operand; the order of elements stays."""


class CountedAs(Enum):
    """Kinds of operators whose number in a sub-graph is a feature of learned cost models."""

    ARITHMETIC = "arithmetic"
    CLIP = "clip"
    PERMUTATION = "permutation"
    TRANSCENDENTAL = "transcendental"
    VIEW = "view"
    OTHER = "other"
    """None of these."""


Evaluator: TypeAlias = Callable[[Any, "list[np.ndarray]"], "np.ndarray | list[np.ndarray]"]
"""Evaluates a call of constants: (call, their arrays) → result, or list of results."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Features of an operator in learned cost models."""

    anchor: int | None = None
    """Position of its feature among those of anchors; None if it encodes as the anchor "other".

    A new anchor takes the next free number. All shipped models must then be trained again.
    """
    counted_as: CountedAs = CountedAs.OTHER
    """Kind as which it is counted in its sub-graph, both as the anchor and as a fused operator."""


@dataclass(frozen=True, kw_only=True)
class Operator:
    """An operator: its meaning, its role in fusion, its work, and its code if TVM has none."""

    name: str
    """Name in Relax without the prefix ``relax.``, such as ``nn.conv2d``.

    A composition has its name in ONNX.
    """
    documentation: str
    """Result in terms of the operands, in one sentence."""
    role: Role = Role.ANCHOR
    """Role when sub-graphs are formed."""
    traits: frozenset[Trait] = frozenset()
    """Properties that passes and cost models query."""
    flops: FlopCount = one_per_result
    """Counts the arithmetic operations of a call, two per multiply-add; the prior of every cost."""
    encoding: Encoding | None = None
    """Features in learned cost models.

    None for an operator that no shipped model was trained with: it encodes as "other".
    """
    packed_operand: int | None = None
    """Index of the operand that units pack before the first run; None if there is none."""
    evaluate: Evaluator | None = None
    """Evaluates a call of constants in numpy.

    TVM's code does so if this is None or raises :class:`NotImplementedError`.
    """
    legalize: Callable[..., Any] | None = None
    """Lowers a call to TensorIR: (block builder, call) → expression; None selects TVM's rule."""
    infer_type: Callable[[Any], Any] | None = None
    """Returns the Relax type of a call, for an operator that TVM lacks.

    Such an operator also needs `legalize`. See :func:`tvm_passes.operator_calls.operator_call`.
    """
    onnx: tuple[OnnxOperator, ...] = ()
    """ONNX operators with this meaning; their nodes may import as other Relax operators."""


def composition(name: str, documentation: str, imported: OnnxOperator | None = None) -> Operator:
    """Make the entry of an ONNX operator that imports as several others.

    Parameters
    ----------
    imported
        The ONNX operator; by default the one of this name in ONNX's own domain, by TVM's converter.
    """
    return Operator(
        name=name,
        documentation=documentation,
        role=Role.COMPOSITION,
        onnx=(imported or OnnxOperator(name=name),),
    )
