"""Stage 4 for the CPU: calls of sub-graph functions become calls of scheduled PrimFuncs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.ir import Call, GlobalVar
from tvm.target import Target

from tvm_passes.cpu.fallback import legalise
from tvm_passes.cpu.host import vector_unit
from tvm_passes.cpu.kernels import Planner, plan_subgraph
from tvm_passes.cpu.plan import Pack, Plan
from tvm_passes.cpu.reorder import reorder
from tvm_passes.cpu.subgraph import read_subgraph
from tvm_passes.cpu.tunable import tunable
from tvm_passes.cpu.tuned import ALGORITHM, find_record, scheduled
from tvm_passes.errors import BuildError
from tvm_passes.ir import Constant, Expr, main_bindings, static_shape, substitute
from tvm_passes.layout import logical_shape, physical_dtype

UNIT = "cpu"


@dataclass(frozen=True)
class _Kernel:
    """A sub-graph function's replacement: one PrimFunc, or calls of several."""

    callee: GlobalVar | None = None
    """The PrimFunc."""
    result: relax.TensorType | None = None
    """Type of its result."""
    packs: Mapping[int, Pack] = field(default_factory=dict)
    """Weights that it takes in another form, by index."""
    constants: tuple[np.ndarray, ...] = ()
    """Further arguments, behind those of the call."""
    body: relax.Function | None = None
    """Calls of PrimFuncs, to be inlined."""


class Lowering:
    """Re-emits `main` with the calls of one unit lowered to PrimFuncs."""

    def __init__(self, module: tvm.IRModule, target: Target, name: str, planner: Planner) -> None:
        self.module = module
        self.target = target
        self.name = name
        self.planner = planner
        self.unit = vector_unit(target)
        kept = {
            gv: func
            for gv, func in module.functions.items()
            if gv.name_hint != "main" and not self._is_ours(func)
        }
        self.builder = relax.BlockBuilder(tvm.IRModule(kept, attrs=module.attrs))
        self.kernels: dict[GlobalVar, _Kernel] = {}
        self.shared: dict[int, list[tuple[relax.Function, _Kernel]]] = {}

    def kernel(self, callee: GlobalVar) -> _Kernel:
        """The replacement of a function, one for all that are the same but for their weights."""
        if callee not in self.kernels:
            function = self.module[callee].without_attr("layoutsel.subgraph")
            bucket = self.shared.setdefault(tvm_ffi.structural_hash(function), [])
            for known, kernel in bucket:
                if tvm_ffi.structural_equal(known, function):
                    self.kernels[callee] = kernel
                    return kernel
            self.kernels[callee] = self._build(callee)
            bucket.append((function, self.kernels[callee]))
        return self.kernels[callee]

    def _build(self, callee: GlobalVar) -> _Kernel:
        function = self.module[callee]
        if "layoutsel.transform" in function.attrs:
            kernel = self._reorder(function)
            if kernel:
                return kernel
        elif str(function.attrs["layoutsel.algorithm"]) == ALGORITHM:
            return self._tuned(function)
        else:
            subgraph = read_subgraph(function)
            plan = self.planner(subgraph, self.unit) if subgraph else ""
            if isinstance(plan, Plan):
                return self._planned(plan)
        return self._legalised(callee, function)

    def _planned(self, plan: Plan) -> _Kernel:
        """A kernel of our own."""
        callee = self._add(plan.prim_func(), self._kernel_name(plan.subgraph.anchor))
        result = relax.TensorType(plan.result_shape, plan.result_dtype)
        constants = [param.constant for param in plan.subgraph.params if param.constant is not None]
        return _Kernel(callee, result, plan.packs, tuple(constants))

    def _tuned(self, function: relax.Function) -> _Kernel:
        """TVM's code under the schedule that a tuning record describes."""
        task = tunable(function)
        found = None if isinstance(task, str) else find_record(task, self.target)
        if isinstance(task, str) or found is None:
            why = task if isinstance(task, str) else "the database at hand has no record for it"
            raise BuildError(f"{_described(function)} cannot be tuned code: {why}")
        try:
            code = scheduled(found)
        except BuildError as error:
            raise BuildError(f"{_described(function)}: {error}") from error
        name = f"{self._kernel_name(str(function.attrs['layoutsel.anchor']))}_tuned"
        return _Kernel(self._add(code, name), task.result, task.packs, task.constants)

    def _add(self, code: tvm.ir.BaseFunc, name: str) -> GlobalVar:
        """Add a kernel, named by its content: the same kernel has the same name in every module."""
        return self.builder.add_func(code, f"{name}_{tvm_ffi.structural_hash(code) % 16**8:08x}")

    def _reorder(self, function: relax.Function) -> _Kernel | None:
        """The kernel of a transform of one float tensor."""
        source, result = str(function.attrs["layoutsel.transform"]).split(">")
        ty = function.params[0].ty
        if str(ty.dtype) != physical_dtype("float32", source):
            return None
        code = reorder(logical_shape(static_shape(ty), source), source, result, self.unit)
        ty = function.ret_ty
        name = f"{self.name}_{source}_to_{result}".replace(".", "_")
        return _Kernel(self._add(code, name), ty)

    def _legalised(self, callee: GlobalVar, function: relax.Function) -> _Kernel:
        """TVM's own code for a sub-graph that no kernel computes."""
        try:
            legalised = legalise(function, self.unit)
        except (RuntimeError, ValueError, TypeError) as error:
            raise BuildError(f"{callee.name_hint}: TVM cannot legalise it: {error}") from error
        mapping = {}
        for gv, func in legalised.functions.items():
            if gv.name_hint != "main":
                mapping[gv] = self._add(func, f"{self.name}_{gv.name_hint}")
        return _Kernel(body=_redirect(legalised["main"], mapping))

    def call(self, call: Call) -> Expr:
        """Emit the lowered form of a call of a CPU function."""
        kernel = self.kernel(call.op)
        label = _label(self.module[call.op])
        if kernel.body is not None:
            return self._inline(kernel.body, call, label)
        hoisted = [relax.const(constant) for constant in kernel.constants]
        arguments = [
            _packed(kernel.packs[index], argument) if index in kernel.packs else argument
            for index, argument in enumerate([*call.args, *hoisted])
        ]
        return self.builder.emit(relax.call_tir(kernel.callee, arguments, kernel.result), label)

    def _inline(self, function: relax.Function, call: Call, label: str) -> Expr:
        mapping: dict[Expr, Expr] = dict(zip(function.params, call.args, strict=True))
        for binding in main_bindings(function):
            value = substitute(binding.value, mapping.get)
            mapping[binding.var] = self.builder.emit(value, label)
        return substitute(function.body.body, mapping.get)

    def lower(self) -> tvm.IRModule:
        """The lowered module."""
        main = self.module["main"]
        mapping: dict[Expr, Expr] = {}
        builder = self.builder
        with builder.function("main", main.params, attrs=dict(main.attrs) if main.attrs else None):
            with builder.dataflow():
                for binding in main_bindings(main):
                    value = substitute(binding.value, mapping.get)
                    if self._calls_us(value):
                        mapping[binding.var] = self.call(value)
                    else:
                        mapping[binding.var] = builder.emit(value)
                result = builder.emit_output(substitute(main.body.body, mapping.get))
            builder.emit_func_output(result)
        return builder.finalize()

    def _kernel_name(self, anchor: str) -> str:
        return f"{self.name}_{anchor.rsplit('.', maxsplit=1)[-1]}"

    def _is_ours(self, function: tvm.ir.BaseFunc) -> bool:
        attrs = function.attrs
        return (
            attrs is not None and "layoutsel.unit" in attrs and attrs["layoutsel.unit"] == self.name
        )

    def _calls_us(self, value: Expr) -> bool:
        return (
            isinstance(value, Call)
            and isinstance(value.op, GlobalVar)
            and value.op in self.module.functions
            and self._is_ours(self.module[value.op])
        )


def _packed(pack: Pack, weights: Constant) -> Expr:
    return relax.const(np.ascontiguousarray(pack(weights.value.numpy())))


def _described(function: relax.Function) -> str:
    attrs = function.attrs
    return f"sub-graph {attrs['layoutsel.subgraph']} ({attrs['layoutsel.anchor']})"


def _label(function: relax.Function) -> str:
    """What the results of a function's calls are named after, for traces: ``s3_``, ``NCHW_to_NHWC_``."""
    attrs = function.attrs
    name = attrs["layoutsel.transform" if "layoutsel.transform" in attrs else "layoutsel.subgraph"]
    return f"{str(name).replace('>', '_to_')}_"


def _redirect(function: relax.Function, mapping: dict[GlobalVar, GlobalVar]) -> relax.Function:
    """`function` with its callees replaced."""

    @relax.expr_functor.mutator
    class _Redirect(relax.PyExprMutator):
        def visit_global_var_(self, gvar: GlobalVar) -> Expr:
            return mapping.get(gvar, gvar)

    return _Redirect().visit_expr(function)


@tvm.transform.module_pass(opt_level=0, name="LowerCpu")
class LowerCpu:
    """Give every sub-graph of the CPU its kernels.

    ``s3(x, w)`` → ``call_tir(cpu_conv2d, (x, packed w))``.

    *Requires* a stage-2 module (:class:`tvm_passes.rewrite_layouts.RewriteLayouts`). *Ensures* that `main` calls no
    function of the unit ``cpu`` any more; weights are packed constants.

    Parameters
    ----------
    target
        The LLVM target that code will be generated for.
    """

    def __init__(self, target: Target) -> None:
        self.target = target

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        """Lower `module`."""
        return Lowering(module, self.target, UNIT, plan_subgraph).lower()
