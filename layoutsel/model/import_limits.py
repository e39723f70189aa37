"""Limits on the tensors of Relax modules."""

from __future__ import annotations

import math
from collections.abc import Iterator

import tvm_ffi
from tvm import relax, tirx
from tvm.ir import IRModule

from layoutsel.errors import ModelTooLarge, UnsupportedModel
from tvm_passes.limits import HINT, ImportLimits, format_bytes


def check_type(ty: relax.Type, what: str, limits: ImportLimits) -> None:
    """Reject a tensor, or a tuple with one, that is too large or empty.

    Parameters
    ----------
    ty
        Type of the value.
    what
        Name of the value, for the message.
    limits
        Limits of the import.

    Raises
    ------
    ModelTooLarge
        If a tensor has more bytes than `limits` allow.
    UnsupportedModel
        If a tensor has no elements, for which no unit has code.
    """
    for tensor in _tensors(ty):
        dims = _dims(tensor)
        if dims is None:
            continue
        shown = f"{tensor.dtype}[{', '.join(map(str, dims))}]"
        nbytes = math.prod(dims) * tvm_ffi.dtype(str(tensor.dtype)).itemsize
        if nbytes > limits.tensor_bytes:
            raise ModelTooLarge(
                f"{what} of {shown}: got {format_bytes(nbytes)}; expected at most "
                f"{format_bytes(limits.tensor_bytes)} (limit 'tensor'). {HINT}"
            )
        if any(size < 1 for size in dims):
            raise UnsupportedModel(
                f"{what} is empty: got {shown}; expected positive sizes. "
                "Export the model without it"
            )


def check_module(module: IRModule, where: str, limits: ImportLimits) -> None:
    """Reject a Relax module with too many bindings, or with a tensor that is too large or empty.

    Errors are those of :func:`check_type`.
    """
    count = 0
    for function in module.functions.values():
        if not isinstance(function, relax.Function):
            continue
        for param in function.params:
            check_type(param.ty, f"{where}: parameter {param.name!r}", limits)
        for binding in _bindings(function):
            count += 1
            check_type(binding.var.ty, f"{where}: result {binding.var.name!r}", limits)
    if count > limits.nodes:
        raise ModelTooLarge(
            f"{where}: got {count:,} bindings; expected at most {limits.nodes:,} "
            f"(limit 'nodes'). {HINT}"
        )


def _bindings(function: relax.Function) -> Iterator[relax.Binding]:
    body = function.body
    for block in body.blocks if isinstance(body, relax.SeqExpr) else ():
        yield from block.bindings


def _tensors(ty: relax.Type) -> Iterator[relax.TensorType]:
    if isinstance(ty, relax.TensorType):
        yield ty
    elif isinstance(ty, relax.TupleType):
        for part in ty.fields:
            yield from _tensors(part)


def _dims(ty: relax.TensorType) -> tuple[int, ...] | None:
    """Return a static shape; None if a dimension or the element type is unknown."""
    shape = ty.shape
    if not isinstance(shape, relax.ShapeExpr):
        return None
    dims = list(shape.values)
    if not all(isinstance(dim, tirx.IntImm) for dim in dims) or not str(ty.dtype):
        return None
    return tuple(int(dim) for dim in dims)
