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
    """Behaviour of an operator when sub-graphs are formed."""

    ELEMENTWISE = "elementwise"
    """Fuses after an anchor, or chains with its like; a kernel of that anchor must know it."""
    MOVEMENT = "movement"
    """Chains with its like; a copy at most."""
    ANCHOR = "anchor"
    """Starts a sub-graph of its own; so does every operator without an entry."""
    COMPOSITION = "composition"
    """Imports as several other operators, and is in no module."""


class Trait(Enum):
    """Property of an operator that a pass or a cost asks for."""

    AVERAGES = "averages"
    """Its result has less of the rounding of its operand, where errors are independent."""
    BROADCASTS = "broadcasts"
    """It combines several operands element by element, with broadcasting."""
    COMMUTES_WITH_QUANTIZATION = "commutes with quantization"
    """It gives the same integers before and after a quantisation with one scale."""
    KEEPS_ELEMENTS = "keeps elements"
    """It computes nothing: all elements of its result are elements of its operands."""
    MULTIPLIES = "multiplies"
    """It adds up products."""
    NORMALISES = "normalises"
    """It magnifies an error of its operand, or sums up squares of it."""
    QUANTIZES = "quantizes"
    """It converts between numbers and the integers that stand for them."""
    READS_LOGITS = "reads logits"
    """Its result saturates, which hides errors of its operand."""
    READS_ROWS = "reads rows"
    """It reads as many elements of its weights as its result has."""
    RENAMES = "renames"
    """It gives its operand another shape, in the same order of elements."""


class CountedAs(Enum):
    """Kind of operator that learned cost models count in a sub-graph."""

    ARITHMETIC = "arithmetic"
    CLIP = "clip"
    PERMUTATION = "permutation"
    TRANSCENDENTAL = "transcendental"
    VIEW = "view"
    OTHER = "other"
    """None of these."""


Evaluator: TypeAlias = Callable[[Any, "list[np.ndarray]"], "np.ndarray | list[np.ndarray]"]
"""(call, arrays of its constants) → result, or list of results."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Features of an operator in learned cost models."""

    anchor: int | None = None
    """Position among the anchors with a feature of their own; the next free number for a new one,
    and all shipped models are then trained again. None: the anchor "other"."""
    counted_as: CountedAs = CountedAs.OTHER
    """Count that it is part of, as an anchor or fused."""


@dataclass(frozen=True, kw_only=True)
class Operator:
    """An operator: its meaning, its role in fusion, its work, and its code where TVM lacks it."""

    name: str
    """Name in Relax without the prefix ``relax.``, such as ``nn.conv2d``; in ONNX for a
    composition."""
    documentation: str
    """Result in terms of the operands, in one sentence."""
    role: Role = Role.ANCHOR
    """Behaviour when sub-graphs are formed."""
    traits: frozenset[Trait] = frozenset()
    """Properties that passes and costs ask for."""
    flops: FlopCount = one_per_result
    """Arithmetic operations of a call, a multiply-add counted as two: the prior of every cost."""
    encoding: Encoding | None = None
    """Features in learned cost models; None: "other", as no shipped model was trained with it."""
    packed_operand: int | None = None
    """Number of the operand that units pack before the first run; None if there is none."""
    evaluate: Evaluator | None = None
    """Result of a call of constants in numpy, from the call and its constants. Where it is None, or
    raises :class:`NotImplementedError`, TVM's code computes the result."""
    legalize: Callable[..., Any] | None = None
    """Rule (block builder, call) → expression that makes TensorIR of a call; None: TVM's rule."""
    infer_type: Callable[[Any], Any] | None = None
    """Relax type of a call, for an operator that TVM lacks; it also needs `legalize`. See
    :func:`tvm_passes.operator_calls.operator_call`."""
    onnx: tuple[OnnxOperator, ...] = ()
    """Operators of ONNX that compute this, whichever operators their nodes import as."""


def composition(name: str, documentation: str, imported: OnnxOperator | None = None) -> Operator:
    """Entry of an operator of ONNX that imports as several others.

    Parameters
    ----------
    imported
        The operator; one of ONNX's own domain of this name, by TVM's converter, where None.
    """
    return Operator(
        name=name,
        documentation=documentation,
        role=Role.COMPOSITION,
        onnx=(imported or OnnxOperator(name=name),),
    )
