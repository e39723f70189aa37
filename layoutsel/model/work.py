"""Conversion of Relax operator calls to shapes and attributes.

:mod:`layoutsel.cost.operations` counts their work.
"""

from __future__ import annotations

from tvm import relax
from tvm.ir import Call

from layoutsel.cost.operations import Operation, TypedShape
from layoutsel.cost.workload import ATTRIBUTES
from tvm_passes.ir import op_name, static_shape, tensor_types


def typed_shapes(types: list[relax.TensorType]) -> tuple[TypedShape, ...]:
    """Convert tensor types to shapes and element types.

    Raises
    ------
    UnsupportedModel
        If a shape is not static.
    """
    return tuple(TypedShape(static_shape(ty), str(ty.dtype)) for ty in types)


def read_operation(value: relax.Expr, result: relax.Type) -> Operation:
    """Convert an expression bound to a variable of type `result`; only calls have operands.

    Raises
    ------
    UnsupportedModel
        If a shape is not static.
    """
    operands = value.args if isinstance(value, Call) else ()
    return Operation(
        operator=op_name(value),
        inputs=typed_shapes([leaf for operand in operands for leaf in tensor_types(operand.ty)]),
        outputs=typed_shapes(tensor_types(result)),
        attributes=_integer_attributes(value),
    )


def _integer_attributes(value: relax.Expr) -> dict[str, tuple[int, ...]]:
    """List the attributes of a call that are in :data:`~layoutsel.cost.workload.ATTRIBUTES`."""
    found: dict[str, tuple[int, ...]] = {}
    attrs = value.attrs if isinstance(value, Call) else None
    for name in ATTRIBUTES if attrs is not None else ():
        attribute = getattr(attrs, name, None)
        if isinstance(attribute, int):
            found[name] = (int(attribute),)
        elif attribute is not None:
            found[name] = tuple(int(entry) for entry in attribute)
    return found
