"""Products in bfloat16: rounded factors, sums in float32, everything else unchanged."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from tvm import relax
from tvm.ir import Call

from tvm_passes.ir import (
    Expr,
    Var,
    is_tensor,
    leaves,
    main_bindings,
    op_name,
    static_shape,
    substitute,
)

_HALF, _FULL = "bfloat16", "float32"
"""Element types of factors and sums."""

Product = Callable[[Call, Expr, Expr], Expr]
"""Makes the call of a product on other operands."""


def _conv2d(call: Call, image: Expr, kernel: Expr) -> Expr:
    """Make the call of a convolution with sums in float32."""
    attrs = call.attrs
    return relax.op.nn.conv2d(
        image,
        kernel,
        strides=attrs.strides,
        padding=attrs.padding,
        dilation=attrs.dilation,
        groups=attrs.groups,
        out_dtype=_FULL,
    )


def _matmul(_call: Call, left: Expr, right: Expr) -> Expr:
    """Make the call of a matrix product with sums in float32."""
    return relax.op.matmul(left, right, out_dtype=_FULL)


PRODUCTS: Mapping[str, Product] = {"nn.conv2d": _conv2d, "matmul": _matmul}
"""Operators that tensor cores compute, by name: makes the float32 call on bfloat16 factors."""


class _Rounding:
    """Emission of a function again, with both forms of each value available."""

    def __init__(self, builder: relax.BlockBuilder) -> None:
        self.builder = builder
        self.full: dict[Expr, Expr] = {}
        self.half: dict[Expr, Expr] = {}

    def enter(self, param: Var, *, rounded: bool) -> Var:
        """Make the new form of a parameter."""
        ty = relax.TensorType(static_shape(param.ty), _HALF) if rounded else param.ty
        new = relax.Var(param.name, ty)
        (self.half if rounded else self.full)[param] = new
        return new

    def exact(self, value: Expr) -> Expr | None:
        """Return a leaf of the old function in float32, or in its own type."""
        if value in self.half and value not in self.full:
            self.full[value] = self.builder.emit(relax.op.astype(self.half[value], _FULL))
        return self.full.get(value)

    def factor(self, value: Expr) -> Expr:
        """Return a value of the old function in bfloat16."""
        if value not in self.half:
            exact = self.exact(value)
            full = value if exact is None else exact
            self.half[value] = self.builder.emit(relax.op.astype(full, _HALF))
        return self.half[value]

    def emit(self, binding: relax.VarBinding) -> None:
        """Emit a binding of the old function."""
        call = binding.value
        product = PRODUCTS.get(op_name(call))
        if product is not None and _is_full(call):
            new = product(call, *map(self.factor, call.args))
        else:
            new = substitute(call, self.exact)
        self.full[binding.var] = self.builder.emit(new)


def _is_full(value: Expr) -> bool:
    """Return whether a value is a tensor of float32."""
    return is_tensor(value) and str(value.ty.dtype) == _FULL


def round_products(
    function: relax.Function, stored: Collection[int], *, result: bool
) -> tuple[relax.Function, frozenset[int]]:
    """Return `function`, with float32 tensors and one result, with its products in bfloat16.

    Parameters
    ----------
    stored
        Indices of the activations that are stored in bfloat16.
    result
        True if the result is stored in bfloat16.

    Returns
    -------
    tuple
        The function, and the indices of all its parameters in bfloat16: `stored`, and weights that
        only products read.
    """
    read_exactly, factors = set[Expr](), set[Expr]()
    for binding in main_bindings(function):
        is_product = op_name(binding.value) in PRODUCTS and _is_full(binding.value)
        (factors if is_product else read_exactly).update(leaves(binding.value))
    rounded = {
        index
        for index, param in enumerate(function.params)
        if index in stored or (param in factors and param not in read_exactly)
    }
    builder = relax.BlockBuilder()
    rounding = _Rounding(builder)
    params = [
        rounding.enter(param, rounded=index in rounded)
        for index, param in enumerate(function.params)
    ]
    with builder.function("main", params):
        with builder.dataflow():
            for binding in main_bindings(function):
                rounding.emit(binding)
            given = function.body.body
            last = rounding.factor(given) if result else rounding.exact(given)
            last = builder.emit_output(last)
        builder.emit_func_output(last)
    return builder.get()["main"], frozenset(rounded)
