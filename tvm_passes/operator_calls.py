"""Operators that TVM lacks: their registration with TVM, and their calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax
from tvm.ir import Call, Op

from tvm_passes.errors import LayoutselError
from tvm_passes.operators import OPERATORS, Operator

_declared: dict[str, Operator] = {}
"""Operators that are registered with TVM by this module, by name."""


def declare_operators() -> None:
    """Register with TVM the operators that it lacks: those whose entry has ``infer_type``.

    Modules with such an operator can be read only afterwards.

    Raises
    ------
    LayoutselError
        If TVM itself has an operator of that name.
    """
    for entry in OPERATORS.values():
        if entry.infer_type is not None and entry.name not in _declared:
            _declare(entry, entry.infer_type)
            _declared[entry.name] = entry


def operator_call(name: str, *operands: relax.Expr, **attributes: Any) -> Call:
    """Make a call of an operator from the table that TVM lacks.

    Parameters
    ----------
    name
        Name of the entry.
    attributes
        Numbers, strings and lists of these, which the entry reads as ``call.attrs``.
    """
    declare_operators()
    described = tvm.ir.make_node("ir.DictAttrs", **attributes) if attributes else None
    return Call(Op.get(f"relax.{name}"), list(operands), described)


def _declare(entry: Operator, infer_type: Callable[[Call], relax.Type]) -> None:
    """Register one operator with TVM."""
    name = f"relax.{entry.name}"
    if name in Op.list_op_names():
        raise LayoutselError(
            f"operator {entry.name!r} states its type, and TVM has an operator of that name; "
            "expected a new name, such as one with the package's own before a dot"
        )
    register = tvm.ir.register_op_attr
    register(name, "FInferType", lambda call, _builder: infer_type(call))
    register(name, "FPurity", True)
    if entry.legalize is not None:
        register(name, "FLegalize", entry.legalize)
