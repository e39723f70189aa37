"""Explicit zero padding as part of the convolution or pooling that follows."""

from __future__ import annotations

from collections.abc import Mapping

import tvm
from tvm import relax
from tvm.ir import Call, IRModule
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvm_passes.ir import Expr, ModulePass, op_name
from tvm_passes.normalize._expressions import call_of, rewrite_functions

_LAYOUT: Mapping[str, tuple[str, str]] = {
    "nn.conv1d": ("data_layout", "NCW"),
    "nn.conv2d": ("data_layout", "NCHW"),
    "nn.conv3d": ("data_layout", "NCDHW"),
    "nn.avg_pool1d": ("layout", "NCW"),
    "nn.avg_pool2d": ("layout", "NCHW"),
    "nn.avg_pool3d": ("layout", "NCDHW"),
}
"""Attribute of the data layout, and the layout for which the padding is folded."""


def _spatial_padding(pad: Call) -> tuple[list[int], list[int]] | None:
    """Return (before, after) of each spatial axis, if `pad` adds zeros to those only."""
    if pad.attrs.pad_mode != "constant" or float(pad.attrs.pad_value) != 0.0:
        return None
    widths = [int(width) for width in pad.attrs.pad_width]
    if any(widths[:4]) or min(widths) < 0:
        return None
    return widths[4::2], widths[5::2]


def _rebuild(call: Call, data: Expr, padding: list[int]) -> Expr:
    """Return `call` on other data with another padding."""
    attrs = call.attrs
    name = op_name(call)
    function = getattr(relax.op.nn, name.removeprefix("nn."))
    if "pool" in name:
        return function(
            data,
            [int(size) for size in attrs.pool_size],
            [int(stride) for stride in attrs.strides],
            padding,
            [int(step) for step in attrs.dilation],
            bool(attrs.ceil_mode),
            True,
            attrs.layout,
            attrs.out_layout,
        )
    return function(
        data,
        call.args[1],
        [int(stride) for stride in attrs.strides],
        padding,
        [int(step) for step in attrs.dilation],
        int(attrs.groups),
        attrs.data_layout,
        attrs.kernel_layout,
        attrs.out_layout,
        attrs.out_dtype,
    )


@mutator
class _PaddingFolder(PyExprMutator):
    def visit_call_(self, call: Call) -> Expr:
        call = super().visit_call_(call)
        if not isinstance(call, Call) or op_name(call) not in _LAYOUT:
            return call
        attribute, layout = _LAYOUT[op_name(call)]
        pad = call_of(self, call.args[0], "nn.pad")
        widths = None if pad is None else _spatial_padding(pad)
        if pad is None or widths is None or getattr(call.attrs, attribute) != layout:
            return call
        own = [int(width) for width in call.attrs.padding]
        if "pool" in op_name(call) and (call.attrs.ceil_mode or any(own)):
            return call
        added = [*widths[0], *widths[1]]
        if len(own) != len(added):
            return call
        return _rebuild(call, pad.args[0], [a + b for a, b in zip(own, added, strict=True)])


@tvm.transform.module_pass(opt_level=0, name="FoldPadding")
class FoldPadding(ModulePass):
    """Make explicit zero padding part of the convolution or average pooling that follows.

    Before::

        lv = R.nn.pad(x, (0, 0, 0, 0, 1, 1, 1, 1))
        lv1 = R.nn.conv2d(lv, w, padding=[0, 0, 0, 0])

    After::

        lv1 = R.nn.conv2d(x, w, padding=[1, 1, 1, 1])

    Requires
        Nothing.
    Ensures
        The same values. Maximum pooling keeps its explicit padding: it would ignore padded zeros.
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Rewrite every function of `mod`."""
        return rewrite_functions(mod, lambda module, _function: _PaddingFolder(module))
