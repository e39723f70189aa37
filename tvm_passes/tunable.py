"""A sub-graph as one unscheduled PrimFunc in its decided layout.

Rules for GPUs or MetaSchedule schedule it. TVM legalises plain layout only. Its code for the
logical tensors is therefore fused into one function. Then every four-dimensional buffer is stored,
and every block iterates, in the order of the layout. This works for everything that TVM can
legalise, including packed convolutions.

If the decision says bfloat16, tensors are stored in it, and products take bfloat16 factors and sum
in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial, reduce

import ml_dtypes
import numpy as np
import tvm
from tvm import relax, s_tir, tirx
from tvm.ir import Call
from tvm.s_tir.schedule import SBlockRV

from tvm_passes.arrays import array_of, on_own_pages
from tvm_passes.errors import UnsupportedModel
from tvm_passes.ir import (
    Constant,
    Expr,
    Var,
    leaves,
    main_bindings,
    op_name,
    static_shape,
    substitute,
)
from tvm_passes.layout import (
    BF16,
    PLAIN,
    block_size,
    convert,
    index_map,
    order_of,
    storage_of,
    tensor_layout,
)
from tvm_passes.layouts import LAYOUTS
from tvm_passes.legalize import legalize_operators
from tvm_passes.ports import Ports, decided_layouts, read_ports
from tvm_passes.propagate_nan import propagating
from tvm_passes.round_products import round_products

_CONVOLUTION = "nn.conv2d"
"""Operator with kernels as weights."""
_IMAGE_AXES, _KERNEL_AXES = 4, 3
"""Loops of a convolution over its result (n, c, h, w), and over its kernel (c, h, w)."""

Axes = Callable[..., list[tirx.Expr]]
"""Maps logical indices to indices in memory."""
Pack = Callable[[np.ndarray], np.ndarray]
"""Converts a weight to the form that the code expects."""


@dataclass(frozen=True, kw_only=True)
class Tunable:
    """A tuning task, and the additional arguments of its code."""

    module: tvm.IRModule
    """Module with one function `main`: the sub-graph's parameters, the constants, the result."""
    constants: tuple[np.ndarray, ...]
    """Arrays of the body, which follow the sub-graph's parameters."""
    packs: Mapping[int, Pack]
    """Conversion of weights and constants that are stored in another form, by index of argument."""
    result: relax.TensorType
    """Type of the result in memory."""


def tunable(function: relax.Function) -> Tunable | str:
    """Return the tuning task of a stage-2 sub-graph function, or the reason why there is none."""
    if not isinstance(function.ret_ty, relax.TensorType):
        return "a body with several results"
    if reason := _unrounded(function):
        return reason
    try:
        logical, constants = _logical(function)
        logical, halves = _rounded(function, logical)
        code = _fused(logical)
    except (UnsupportedModel, RuntimeError, ValueError, TypeError) as error:
        return f"code that TVM cannot generate: {str(error).strip().splitlines()[-1]}"
    if code is None or relax.analysis.has_reshape_pattern(code):
        return "a view, which needs no code"
    stored = _Stored(function, logical, halves)
    try:
        module = _in_layout(code, stored.buffers(code), stored.layout)
    except (s_tir.schedule.ScheduleError, RuntimeError, ValueError, TypeError) as error:
        return f"a body that has no {stored.layout} form: {str(error).strip().splitlines()[-1]}"
    return Tunable(
        module=module,
        constants=constants,
        packs=stored.packs(),
        result=relax.TensorType(static_shape(function.ret_ty), function.ret_ty.dtype),
    )


def _logical(function: relax.Function) -> tuple[relax.Function, tuple[np.ndarray, ...]]:
    """Return `function` over logical tensors, without the transforms at its ports, and its arrays.

    Arrays of the body become additional parameters; their values are the second result. Scalars
    stay.
    """
    ports = read_ports(function)
    arrays = _arrays(ports)
    inputs = [value for value, _ in sorted(ports.inputs.items(), key=lambda item: item[1])]
    outer = [*inputs, *function.params[len(inputs) :], *arrays]
    mapping: dict[Expr, Expr] = {
        value: relax.Var(getattr(value, "name", f"c{index}"), value.ty)
        for index, value in enumerate(outer)
    }
    builder = relax.BlockBuilder()
    with builder.function("main", [mapping[value] for value in outer]):
        with builder.dataflow():
            for binding in ports.body:
                mapping[binding.var] = builder.emit(substitute(binding.value, mapping.get))
            result = builder.emit_output(mapping[ports.result])
        builder.emit_func_output(result)
    return builder.get()["main"], tuple(array_of(array) for array in arrays)


def _unrounded(function: relax.Function) -> str | None:
    """Return the reason why the decided precision is not computed, or None."""
    layouts = [layout for ports in decided_layouts(function) for layout in ports]
    others = {storage_of(layout) for layout in layouts} - {"", BF16}
    return (
        f"values in the storage {min(others)}, which only kernels and copies know"
        if others
        else None
    )


def _rounded(
    function: relax.Function, logical: relax.Function
) -> tuple[relax.Function, frozenset[int]]:
    """Return `logical` in the precision of `function`, and the indices of bfloat16 parameters."""
    if str(function.attrs["layoutsel.precision"]) != BF16:
        return logical, frozenset()
    inputs, (output,) = decided_layouts(function)
    halves = {index for index, layout in enumerate(inputs) if storage_of(layout) == BF16}
    return round_products(logical, halves, result=storage_of(output) == BF16)


def _arrays(ports: Ports) -> list[Constant]:
    """Return the constants of a body that are no scalars."""
    found = [leaf for binding in ports.body for leaf in leaves(binding.value)]
    arrays = [leaf for leaf in found if isinstance(leaf, Constant) and array_of(leaf).size > 1]
    return list(dict.fromkeys(arrays))


def _fused(function: relax.Function) -> tirx.PrimFunc | None:
    """Return one PrimFunc for the whole body; None if it computes nothing."""
    module = legalize_operators()(tvm.IRModule({"main": function}))
    if not any(op_name(binding.value) == "call_tir" for binding in main_bindings(module["main"])):
        return None
    others = {gv: func for gv, func in module.functions.items() if gv.name_hint != "main"}
    builder = relax.BlockBuilder(tvm.IRModule(others))
    body = module["main"].without_attr("global_symbol").with_attr("Primitive", True)
    callee = builder.add_func(body, "fused")
    params = [relax.Var(param.name, param.ty) for param in function.params]
    with builder.function("main", params):
        with builder.dataflow():
            result = builder.emit_output(Call(callee, params))
        builder.emit_func_output(result)
    fused = relax.transform.FuseTIR()(builder.finalize())
    (code,) = (f for f in fused.functions.values() if isinstance(f, tirx.PrimFunc))
    return propagating(code)


class _Stored:
    """Memory layouts of the buffers of a sub-graph's code."""

    def __init__(
        self, function: relax.Function, logical: relax.Function, halves: frozenset[int]
    ) -> None:
        self.halves = halves
        self.layout = str(function.attrs["layoutsel.layout"])
        inputs, (output,) = decided_layouts(function)
        self.inputs, self.output = tuple(map(order_of, inputs)), order_of(output)
        self.shapes = [static_shape(param.ty) for param in logical.params]
        # A kernel that another sub-graph computes keeps that sub-graph's form.
        self.kernels = {i for i in _kernels(logical) if i >= len(self.inputs)}

    def packs(self) -> dict[int, Pack]:
        """Return the conversions of weights that the layout stores in another form, by index."""
        packs: dict[int, Pack] = {}
        for index in range(len(self.inputs), len(self.shapes)):
            layout = tensor_layout(self.shapes[index], self.layout)
            steps: list[Pack] = []
            if index in self.kernels and self.layout != PLAIN:
                steps.append(partial(_pack_kernel, layout=self.layout))
            elif layout != PLAIN:
                steps.append(partial(convert, source=PLAIN, destination=layout))
            if index in self.halves:
                steps.append(_round)
            if steps:
                packs[index] = partial(_in_turn, steps=tuple(steps))
        return packs

    def buffers(self, code: tirx.PrimFunc) -> Iterator[tuple[Var, Axes]]:
        """Yield the buffers of `code` that are stored in another order, each with its index map."""
        for index, buffer in enumerate(code.params):
            if index in self.kernels and self.layout != PLAIN:
                yield buffer, partial(_kernel_axes, self.layout, self.shapes[index])
            elif (layout := self._layout(index, _shape(buffer))) != PLAIN:
                yield buffer, index_map(PLAIN, layout)
        for buffer in code.body.block.alloc_buffers:
            if (layout := tensor_layout(_shape(buffer), self.layout)) != PLAIN:
                yield buffer, index_map(PLAIN, layout)

    def _layout(self, index: int, shape: tuple[int, ...]) -> str:
        if index < len(self.inputs):
            return self.inputs[index]
        return self.output if index == len(self.shapes) else tensor_layout(shape, self.layout)


def _kernels(function: relax.Function) -> set[int]:
    """Return the indices of the parameters that are kernels of convolutions."""
    convolutions = [b.value for b in main_bindings(function) if op_name(b.value) == _CONVOLUTION]
    kernels = [call.args[1] for call in convolutions]
    return {index for index, param in enumerate(function.params) if param in kernels}


def _shape(buffer: Var) -> tuple[int, ...]:
    """Return the shape of a buffer."""
    return tuple(int(extent) for extent in buffer.shape)


def _kernel_axes(layout: str, shape: tuple[int, ...], *axes: tirx.Expr) -> list[tirx.Expr]:
    """Return the indices in memory of a kernel's element (o, i, h, w) for images in `layout`.

    The order is HWIO, or OIHW with blocks innermost.
    """
    o, i, h, w = axes
    block = block_size(layout)
    if block is None:
        return [h, w, i, o]
    inner_i = [i % block] if shape[1] % block == 0 else []
    inner_o = [o % block] if shape[0] % block == 0 else []
    outer_i, outer_o = (i // block if inner_i else i), (o // block if inner_o else o)
    return [outer_o, outer_i, h, w, *inner_i, *inner_o]


def _in_turn(array: np.ndarray, steps: tuple[Pack, ...]) -> np.ndarray:
    """Apply conversions one after the other."""
    return reduce(lambda value, step: step(value), steps, array)


def _round(array: np.ndarray) -> np.ndarray:
    """Round to bfloat16."""
    return array.astype(ml_dtypes.bfloat16)


def _pack_kernel(array: np.ndarray, layout: str) -> np.ndarray:
    """Convert the values of a kernel to the order of :func:`_kernel_axes`."""
    o, i, h, w = array.shape
    block = block_size(layout)
    if block is None:
        return on_own_pages(array.transpose(2, 3, 1, 0))
    block_o, block_i = (block if size % block == 0 else 1 for size in (o, i))
    split = array.reshape(o // block_o, block_o, i // block_i, block_i, h, w)
    ordered = split.transpose(0, 2, 4, 5, 3, 1)
    dropped = tuple(axis for axis, size in ((4, block_i), (5, block_o)) if size == 1)
    return on_own_pages(ordered.squeeze(dropped))


def _in_layout(
    code: tirx.PrimFunc, buffers: Iterator[tuple[Var, Axes]], layout: str
) -> tvm.IRModule:
    """Return `code` with `buffers` stored, and its blocks iterating, in the order of `layout`."""
    function = code.with_attr("global_symbol", "main").with_attr("tirx.noalias", True)
    schedule = s_tir.Schedule(tvm.IRModule({"main": function}), error_render_level="fast")
    blocks = schedule.get_child_blocks(schedule.get_sblock("root", func_name="main"))
    orders = [(block, _iteration(schedule, block, layout)) for block in blocks]
    for block, order in orders:
        if order is not None:
            schedule.transform_block_layout(block, order)
    for buffer, axes in buffers:
        block, place = _access(schedule, blocks, buffer)
        schedule.transform_layout(block, place, axes)
    return schedule.mod


def _access(
    schedule: s_tir.Schedule, blocks: list[SBlockRV], buffer: Var
) -> tuple[SBlockRV, tuple[str, int]]:
    """Return a block that accesses `buffer`, and the place of the access."""
    for block in blocks:
        statement = schedule.get(block)
        for kind, regions in (("write", statement.writes), ("read", statement.reads)):
            for index, region in enumerate(regions):
                if region.source.same_as(buffer):
                    return block, (kind, index)
    raise ValueError(f"no block touches {buffer.name}")


def _iteration(schedule: s_tir.Schedule, block: SBlockRV, layout: str) -> tirx.IndexMap | None:
    """Return the order in which a block iterates over an image in `layout`; None if unchanged."""
    statement = schedule.get(block)
    kinds = [var.iter_type for var in statement.iter_vars]
    extents = [int(var.dom.extent) for var in statement.iter_vars]
    reductions = len(kinds) - _IMAGE_AXES
    image = [tirx.IterVar.DataPar] * _IMAGE_AXES
    if (
        layout == PLAIN
        or kinds[:_IMAGE_AXES] != image
        or tirx.IterVar.DataPar in kinds[_IMAGE_AXES:]
    ):
        return None
    stored = tensor_layout(extents[:_IMAGE_AXES], layout)
    kernel = (1, *extents[_IMAGE_AXES:]) if reductions == _KERNEL_AXES else ()
    summed = tensor_layout(kernel, layout)

    def order(*axes: tirx.Expr) -> list[tirx.Expr]:
        outer, inner = _mapped(stored, axes[:_IMAGE_AXES]), list(axes[_IMAGE_AXES:])
        if kernel:
            inner = _without_batch(summed, _mapped(summed, (tirx.IntImm("int64", 0), *inner)))
        return [*outer, *inner]

    return tirx.IndexMap.from_func(order, ndim=len(kinds), index_dtype="int64")


def _without_batch(layout: str, axes: list[tirx.Expr]) -> list[tirx.Expr]:
    """Return the axes in memory of an image without those of the batch."""
    to_physical = LAYOUTS.find(layout).to_physical
    first, second = to_physical(0, 0, 0, 0), to_physical(1, 0, 0, 0)
    return [axis for axis, one, other in zip(axes, first, second, strict=True) if one == other]


def _mapped(layout: str, axes: tuple[tirx.Expr, ...]) -> list[tirx.Expr]:
    """Return plain indices in another order."""
    return list(index_map(PLAIN, layout).map_indices(list(axes)))
