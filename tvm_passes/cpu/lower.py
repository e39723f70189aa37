"""Stage 4 of the CPU: replace calls of sub-graph functions by calls of scheduled PrimFuncs.

This includes all units whose code TVM generates for the CPU.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.ir import Call, GlobalVar
from tvm.target import Target

from tvm_passes.algorithms import algorithm_of
from tvm_passes.cpu.absorb import find_absorbed
from tvm_passes.cpu.fallback import legalise
from tvm_passes.cpu.host import vector_unit
from tvm_passes.cpu.kernels import Planner, plan_subgraph
from tvm_passes.cpu.place import WRITERS, find_placements, reads_slices
from tvm_passes.cpu.plan import KernelPlan
from tvm_passes.cpu.pointwise import plan_concat
from tvm_passes.cpu.reorder import reorder
from tvm_passes.cpu.subgraph import read_subgraph
from tvm_passes.cpu.view import Slice, is_addressed
from tvm_passes.errors import BuildError
from tvm_passes.inlining import inline, label_of, redirect
from tvm_passes.ir import Expr, ModulePass, Var, constant_of, static_shape
from tvm_passes.layout import logical_shape, physical_dtype, physical_shape
from tvm_passes.main_rewriter import MainRewriter
from tvm_passes.tunable import Pack, tunable
from tvm_passes.tuned import tuned_code
from tvm_passes.weight_pool import packed_by

UNIT = "cpu"
"""Name of the compute unit."""


@dataclass(frozen=True)
class _Kernel:
    """Replacement of a sub-graph function: one PrimFunc, or calls of several."""

    callee: GlobalVar | None = None
    """The PrimFunc."""
    result: relax.TensorType | None = None
    """Type of its result."""
    packs: Mapping[int, Pack] = field(default_factory=dict)
    """Packing of each weight that the PrimFunc expects in another form, by index."""
    constants: tuple[np.ndarray, ...] = ()
    """Additional arguments, after those of the call."""
    body: relax.Function | None = None
    """Calls of PrimFuncs that are inlined."""


@dataclass(frozen=True)
class _Place:
    """Differences between the operands of one call and those of the sub-graph itself.

    These are slices of larger tensors, and another layout.
    """

    within: Slice | None = None
    """Slice of a larger tensor that the kernel writes; None if the result is a separate tensor."""
    reads: tuple[tuple[int, Slice], ...] = ()
    """Slices of larger tensors that the kernel reads, with the indices of the activations."""
    absent: frozenset[int] = frozenset()
    """Activations of a concatenation that need no copy."""
    layout: str | None = None
    """Layout of the result instead of the decided one, if the kernel absorbs the next transform."""


class _Lowering(MainRewriter):
    """Rewriter of the main function that replaces calls of sub-graph functions."""

    def __init__(
        self, module: tvm.IRModule, target: Target, planners: Mapping[str, Planner]
    ) -> None:
        super().__init__(module, keep=lambda function: not _belongs(function, planners))
        self.target = target
        self.planners = planners
        self.unit = vector_unit(target)
        self.kernels: dict[tuple[GlobalVar, _Place], _Kernel] = {}
        self.shared: dict[tuple[int, _Place], list[tuple[relax.Function, _Kernel]]] = {}
        self.placements = find_placements(module, self._writes, self._reads)
        homes = {placement.home for placement in self.placements.values()}
        self.absorbed = find_absorbed(module, self._writes_in, homes)
        self.written = {moved.result for moved in self.absorbed.values()}
        """Results of transforms whose producer writes in their layout itself."""
        self.homes: dict[Var, Var] = {}
        """Latest value of each tensor that others are placed in."""

    def kernel(self, callee: GlobalVar, place: _Place) -> _Kernel:
        """Return the replacement of a function; functions that differ only in weights share one."""
        key = (callee, place)
        if key not in self.kernels:
            function = self.module[callee].without_attr("layoutsel.subgraph")
            bucket = self.shared.setdefault((tvm_ffi.structural_hash(function), place), [])
            for known, kernel in bucket:
                if tvm_ffi.structural_equal(known, function):
                    self.kernels[key] = kernel
                    return kernel
            self.kernels[key] = self._build(callee, place)
            bucket.append((function, self.kernels[key]))
        return self.kernels[key]

    def _build(self, callee: GlobalVar, place: _Place) -> _Kernel:
        """Build the replacement of a function: reorder, tuned code, kernel, or TVM's own code."""
        function = self.module[callee]
        if "layoutsel.transform" in function.attrs:
            kernel = self._reorder(function, place.within)
            if kernel:
                return kernel
        elif _is_tuned(function):
            return self._tuned(function)
        else:
            plan = self._plan(function, place)
            if isinstance(plan, KernelPlan):
                return self._planned(plan, _unit(function))
        return self._legalised(function)

    def _plan(self, function: relax.Function, place: _Place) -> KernelPlan | str:
        """Return the kernel plan of a sub-graph, or the reason against one."""
        subgraph = read_subgraph(function, within=place.within, reads=dict(place.reads))
        if subgraph is None:
            return ""
        if place.layout is not None:
            subgraph = replace(subgraph, out_layouts=(place.layout,))
        if place.absent:
            return plan_concat(subgraph, self.unit, place.absent)
        return self.planners[_unit(function)](subgraph, self.unit)

    def _writes(self, function: relax.Function) -> bool:
        """Return whether the kernel of a function can store its result into a larger tensor."""
        if not self._is_ours(function):
            return False
        if "layoutsel.transform" in function.attrs:
            return self._reorders(function)
        if function.attrs["layoutsel.anchor"] not in WRITERS or _is_tuned(function):
            return False
        return isinstance(self._plan(function, _Place()), KernelPlan)

    def _writes_in(self, function: relax.Function, layout: str) -> bool:
        """Return whether the kernel of a function can write its result in `layout`."""
        if not self._is_ours(function) or _is_tuned(function):
            return False
        return isinstance(self._plan(function, _Place(layout=layout)), KernelPlan)

    def _reads(self, function: relax.Function, index: int) -> bool:
        """Return whether the kernel can read activation `index` from a slice of a larger tensor."""
        if not self._is_ours(function) or "layoutsel.transform" in function.attrs:
            return False
        subgraph = read_subgraph(function)
        if subgraph is None or not reads_slices(subgraph):
            return False
        (shape,) = (param.shape for param in subgraph.params if param.index == index)
        place = _Place(reads=((index, Slice(shape=shape, first=0)),))
        return isinstance(self._plan(function, place), KernelPlan)

    def _planned(self, plan: KernelPlan, unit: str) -> _Kernel:
        """Add the kernel of a plan."""
        callee = self._add(plan.prim_func(), _kernel_name(unit, plan.subgraph.anchor))
        result = relax.TensorType(plan.result_shape, plan.result_dtype)
        constants = [param.constant for param in plan.subgraph.params if param.constant is not None]
        return _Kernel(callee, result, plan.packs, tuple(constants))

    def _tuned(self, function: relax.Function) -> _Kernel:
        """Add TVM's code under the schedule of a tuning record."""
        task = tunable(function)
        try:
            code = tuned_code(task, self.target)
        except BuildError as error:
            raise _build_error(function, error) from error
        assert not isinstance(task, str), "it has code"
        name = f"{_kernel_name(_unit(function), str(function.attrs['layoutsel.anchor']))}_tuned"
        return _Kernel(self._add(code, name), task.result, task.packs, task.constants)

    def _add(self, code: tvm.ir.BaseFunc, name: str) -> GlobalVar:
        """Add a kernel, named by its content: the same kernel has the same name in every module."""
        return self.builder.add_func(code, f"{name}_{tvm_ffi.structural_hash(code) % 16**8:08x}")

    def _reorder(self, function: relax.Function, within: Slice | None) -> _Kernel | None:
        """Add the kernel of a layout transform; None if there is none."""
        if not self._reorders(function):
            return None
        source, result = str(function.attrs["layoutsel.transform"]).split(">")
        shape = logical_shape(static_shape(function.params[0].ty), source)
        code = reorder(shape, source, result, self.unit, within)
        ty = function.ret_ty
        if within is not None:
            ty = relax.TensorType(physical_shape(within.shape, result), str(ty.dtype))
        name = f"{_unit(function)}_{source}_to_{result}".replace(".", "_")
        return _Kernel(self._add(code, name), ty)

    def _reorders(self, function: relax.Function) -> bool:
        """Return whether a transform has a kernel: for floats, between layouts of kernels."""
        source, result = str(function.attrs["layoutsel.transform"]).split(">")
        dtype = str(function.params[0].ty.dtype)
        return (
            is_addressed(source)
            and is_addressed(result)
            and dtype == physical_dtype("float32", source)
        )

    def _legalised(self, function: relax.Function) -> _Kernel:
        """Add TVM's own code, for a sub-graph without a kernel."""
        try:
            legalised = legalise(function, self.unit)
        except (RuntimeError, ValueError, TypeError) as error:
            raise _build_error(function, f"TVM cannot legalise it: {error}") from error
        mapping = {}
        for gv, func in legalised.functions.items():
            if gv.name_hint != "main":
                mapping[gv] = self._add(func, f"{_unit(function)}_{gv.name_hint}")
        return _Kernel(body=redirect(legalised["main"], mapping))

    def _place(self, var: Var, call: Call) -> _Place:
        """Return the operands of a binding of the old `main` that are slices of larger tensors."""
        found = {
            index: self.placements[argument].slice
            for index, argument in enumerate(call.args)
            if isinstance(argument, Var) and argument in self.placements
        }
        moved = self.absorbed.get(var)
        own = self.placements.get(moved.result if moved else var)
        # An operand of a concatenation can only be placed in the concatenation's result, where it
        # needs no copy.
        joins = self.module[call.op].attrs.get("layoutsel.anchor", "") == "concat"
        return _Place(
            within=own.slice if own else None,
            reads=() if joins else tuple(found.items()),
            absent=frozenset(found) if joins else frozenset(),
            layout=moved.layout if moved else None,
        )

    def call(self, binding: relax.VarBinding, call: Call) -> Expr:
        """Emit the lowered form of a binding that calls a function of these units.

        `call` has the new arguments.
        """
        moved = self.absorbed.get(binding.var)
        own = self.placements.get(moved.result if moved else binding.var)
        home = own.home if own else binding.var
        place = self._place(binding.var, binding.value)
        if place.absent and len(place.absent) == len(call.args):
            return self.homes[home]
        kernel = self.kernel(call.op, place)
        label = label_of(self.module[call.op])
        if kernel.body is not None:
            return inline(self.builder, kernel.body, call.args, label)
        hoisted = [constant_of(constant) for constant in kernel.constants]
        arguments = [
            packed_by(kernel.packs[index], argument) if index in kernel.packs else argument
            for index, argument in enumerate([*call.args, *hoisted])
            if index not in place.absent
        ]
        if home not in self.homes:
            value = relax.call_tir(kernel.callee, arguments, kernel.result)
        else:
            whole = [*arguments, self.homes[home]]
            value = relax.call_tir_inplace(kernel.callee, whole, [len(arguments)], kernel.result)
        result = self.builder.emit(value, label)
        if own or place.absent:
            self.homes[home] = result
        return result

    def rewrite(self, binding: relax.VarBinding) -> Expr:
        value = self.renewed(binding.value)
        if binding.var in self.written:
            return value.args[0]
        return self.call(binding, value) if self._calls_us(value) else self.copy(binding)

    def _is_ours(self, function: tvm.ir.BaseFunc) -> bool:
        return _belongs(function, self.planners)

    def _calls_us(self, value: Expr) -> bool:
        return (
            isinstance(value, Call)
            and isinstance(value.op, GlobalVar)
            and value.op in self.module.functions
            and self._is_ours(self.module[value.op])
        )


def _belongs(function: tvm.ir.BaseFunc, units: Collection[str]) -> bool:
    """Return whether a function belongs to one of `units`."""
    attrs = function.attrs
    return attrs is not None and str(attrs.get("layoutsel.unit", "")) in units


def _unit(function: relax.Function) -> str:
    """Return the unit of a function."""
    return str(function.attrs["layoutsel.unit"])


def _is_tuned(function: relax.Function) -> bool:
    """Return whether a tuning record provides the code of a function."""
    return algorithm_of(str(function.attrs["layoutsel.algorithm"])).recorded


def _kernel_name(unit: str, anchor: str) -> str:
    """Return the base name of a kernel."""
    return f"{unit}_{anchor.rsplit('.', maxsplit=1)[-1]}"


def _build_error(function: relax.Function, reason: object) -> BuildError:
    """Create the error that names the sub-graph or transform of a function."""
    unit = _unit(function)
    if "layoutsel.transform" in function.attrs:
        transform = str(function.attrs["layoutsel.transform"])
        return BuildError(
            f"transform {transform} on {unit}: {reason}", unit=unit, transform=transform
        )
    subgraph = str(function.attrs["layoutsel.subgraph"])
    what = f"sub-graph {subgraph} ({function.attrs['layoutsel.anchor']}) on {unit}"
    return BuildError(f"{what}: {reason}", subgraph=subgraph, unit=unit)


@tvm.transform.module_pass(opt_level=0, name="LowerCpu")
@dataclass(frozen=True)
class LowerCpu(ModulePass):
    """Replace calls of sub-graphs on the CPU by calls of kernels.

    This includes all units whose code TVM generates for the CPU.

    ``s3(x, w)`` → ``call_tir(cpu_conv2d, (x, packed w))``. Operands of a concatenation are written
    in place: ``concat(s3(x, w), s4(y, v))`` →
    ``call_tir_inplace(cpu_conv2d, (y, packed v, call_tir(cpu_conv2d, (x, packed w))))``.

    *Requires* a stage-2 module (:class:`tvm_passes.rewrite_layouts.RewriteLayouts`). *Ensures* that
    `main` calls no function of these units, and that weights are packed constants.
    """

    target: Target
    """LLVM target of the generated code."""

    planners: Mapping[str, Planner] = field(default_factory=lambda: {UNIT: plan_subgraph})
    """Planner of the kernels of each unit."""

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        """Replace the calls of these units' sub-graphs in `module`."""
        return _Lowering(module, self.target, self.planners).run()
