"""Legalisation of operators that TVM's own code computes inexactly, for all units with TVM's code.

Means and variances are computed from differences to the first averaged element. Otherwise a mean
that is much larger than the deviation would have a rounding error that is large relative to the
deviation, and ``mean(x²) - mean(x)²`` would lose all digits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import tvm
from tvm import relax, te, tirx, topi
from tvm.ir import Call

from tvm_passes.ir import Expr, static_shape
from tvm_passes.operators import OPERATORS

Legalize = Callable[[relax.BlockBuilder, Call], Expr]
"""Legalises a call with a block builder."""


class _Averages:
    """Averages of a tensor over some axes, which are kept with an extent of one."""

    def __init__(self, x: te.Tensor, axes: Sequence[int]) -> None:
        self.x = x
        self.axes = [axis % len(x.shape) for axis in axes] if axes else list(range(len(x.shape)))
        self.kept = [1 if axis in self.axes else size for axis, size in enumerate(x.shape)]
        self.count = float(prod(int(x.shape[axis]) for axis in self.axes))
        self.mean = self._average("mean", self.difference)

    def difference(self, *index: tirx.Expr) -> tirx.Expr:
        """Return an element minus the first element of its average."""
        return self.x(*index) - self.x(*self._first(index))

    def centred(self, *index: tirx.Expr) -> tirx.Expr:
        """Return an element minus the mean."""
        return self.difference(*index) - self.mean(*self._first(index))

    def variance(self) -> te.Tensor:
        """Return the mean square of the centred elements."""
        return self._average("variance", lambda *i: self.centred(*i) * self.centred(*i))

    def _first(self, index: Sequence[tirx.Expr]) -> list[tirx.Expr]:
        """Return the index of the first element of an average."""
        return [tirx.const(0, i.ty.dtype) if n in self.axes else i for n, i in enumerate(index)]

    def _average(self, name: str, element: Callable[..., tirx.Expr]) -> te.Tensor:
        over = [te.reduce_axis((0, self.x.shape[axis]), f"k{axis}") for axis in self.axes]

        def total(*index: tirx.Expr) -> tirx.Expr:
            full = list(index)
            for axis, step in zip(self.axes, over, strict=True):
                full[axis] = step.var
            return te.sum(element(*full), axis=over)

        sums = te.compute(self.kept, total, name=f"{name}_sum")
        count = tirx.const(self.count, self.x.dtype)
        return te.compute(self.kept, lambda *i: sums(*i) / count, name=name)


def _axes(call: Call) -> list[int]:
    """Return the axes of a reduction; empty for all."""
    axes = call.attrs.axis
    return [] if axes is None else [int(axis) for axis in axes]


def _moment(finish: Callable[[tirx.Expr], tirx.Expr], name: str) -> Legalize:
    """Make the legalisation of a function of the variance."""

    def rule(builder: relax.BlockBuilder, call: Call) -> Expr:
        axes, shape = _axes(call), static_shape(call.ty)

        def emit(x: te.Tensor) -> te.Tensor:
            averages = _Averages(x, axes)
            variance, rank = averages.variance(), len(x.shape)
            kept = range(rank) if call.attrs.keepdims else set(range(rank)) - set(averages.axes)

            def element(*index: tirx.Expr) -> tirx.Expr:
                full: list[tirx.Expr] = [tirx.const(0, "int64")] * rank
                for place, axis in zip(index, sorted(kept), strict=True):
                    full[axis] = place
                return finish(variance(*full))

            return te.compute(shape, element, name=name)

        return builder.call_te(emit, call.args[0], primfunc_name_hint=name)

    return rule


def layer_norm(builder: relax.BlockBuilder, call: Call) -> Expr:
    """Legalise a normalisation over the last axes, from differences to the first element."""
    attrs = call.attrs
    axes, epsilon = [int(axis) for axis in attrs.axes], float(attrs.epsilon)

    def emit(x: te.Tensor, scale: te.Tensor, shift: te.Tensor) -> te.Tensor:
        averages = _Averages(x, axes)
        variance = averages.variance()
        least = tirx.const(epsilon, x.dtype)
        inverse = te.compute(
            variance.shape, lambda *i: tirx.rsqrt(variance(*i) + least), name="inverse"
        )

        def element(*index: tirx.Expr) -> tirx.Expr:
            first = [0 if n in averages.axes else i for n, i in enumerate(index)]
            inner = [index[axis] for axis in averages.axes]
            # As in TVM's own code, regardless of `center` and `scale`.
            return averages.centred(*index) * inverse(*first) * scale(*inner) + shift(*inner)

        return te.compute(x.shape, element, name="layer_norm")

    return builder.call_te(emit, *call.args, primfunc_name_hint="layer_norm")


def _index(name: str) -> Legalize:
    """Make the legalisation of an index of an extremum from TVM's own.

    TVM's index is -1 if all elements are infinite or NaN.
    """

    def rule(builder: relax.BlockBuilder, call: Call) -> Expr:
        usual = tvm.ir.Op.get(name).get_attr("FLegalize")
        found = builder.emit(usual(builder, call))
        return builder.call_te(
            lambda index: topi.maximum(index, 0), found, primfunc_name_hint="index"
        )

    return rule


argmax = _index("relax.argmax")
"""Legalisation of ``argmax``: TVM's own, but with index 0 where TVM's is -1.

TVM's index is -1 if all elements are infinite or NaN.
"""
argmin = _index("relax.argmin")
"""Legalisation of ``argmin``: TVM's own, but with index 0 where TVM's is -1.

TVM's index is -1 if all elements are infinite or NaN.
"""
std = _moment(tirx.sqrt, "std")
"""Legalisation of the standard deviation, from differences to the first element."""
variance = _moment(lambda variance: variance, "variance")
"""Legalisation of the variance, from differences to the first element."""


def legalize_operators() -> tvm.transform.Pass:
    """Return TVM's pass ``LegalizeOps`` with the rules of the table of operators."""
    rules = {f"relax.{name}": entry.legalize for name, entry in OPERATORS.items()}
    return relax.transform.LegalizeOps({name: rule for name, rule in rules.items() if rule})
