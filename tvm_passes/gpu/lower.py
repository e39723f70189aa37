"""Stage 4 of a device: calls of its sub-graph functions become calls of PrimFuncs that are scheduled for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.ir import Call, GlobalVar
from tvm.target import Target

from tvm_passes.errors import BuildError
from tvm_passes.gpu.schedule import legalise, schedule
from tvm_passes.inlining import hint_of, inline, label_of, redirect
from tvm_passes.ir import (
    Expr,
    ModulePass,
    constant_of,
    main_bindings,
    rebuilding,
    substitute,
)
from tvm_passes.layout import PLAIN
from tvm_passes.tunable import Pack, Tunable, tunable
from tvm_passes.tuned import ALGORITHM, tuned_code
from tvm_passes.weight_pool import packed_by


@dataclass(frozen=True, kw_only=True)
class _Code:
    """What a sub-graph function is replaced by: calls of PrimFuncs, to be inlined."""

    body: relax.Function
    """Takes the function's parameters, then `constants`."""
    packs: Mapping[int, Pack] = field(default_factory=dict)
    """Weights and constants that it takes in another form, by index."""
    constants: tuple[np.ndarray, ...] = ()


class _Lowering:
    """Re-emits `main` with the calls of one device's sub-graphs lowered."""

    def __init__(self, module: tvm.IRModule, unit: str, target: Target) -> None:
        self.module = module
        self.unit = unit
        self.target = target
        self.builder = rebuilding(module, lambda _name, function: not _belongs(function, unit))
        self.codes: dict[tvm_ffi.StructuralKey, _Code] = {}

    def lower(self) -> tvm.IRModule:
        """The lowered module."""
        builder, main = self.builder, self.module["main"]
        mapping: dict[Expr, Expr] = {}
        with builder.function("main", main.params, attrs=dict(main.attrs) if main.attrs else None):
            with builder.dataflow():
                for binding in main_bindings(main):
                    value = substitute(binding.value, mapping.get)
                    if isinstance(value, Call) and self._calls_us(value):
                        mapping[binding.var] = self._call(value)
                    else:
                        mapping[binding.var] = builder.emit(value, hint_of(binding.var))
                result = builder.emit_output(substitute(main.body.body, mapping.get))
            builder.emit_func_output(result)
        return builder.finalize()

    def _calls_us(self, call: Call) -> bool:
        return _belongs(self.module.functions.get(call.op), self.unit)

    def _call(self, call: Call) -> Expr:
        """Emit the lowered form of a call; its result."""
        function = self.module[call.op]
        code = self._code(function)
        constants = [constant_of(constant) for constant in code.constants]
        arguments = [
            packed_by(code.packs[index], argument) if index in code.packs else argument
            for index, argument in enumerate([*call.args, *constants])
        ]
        return inline(self.builder, code.body, arguments, label_of(function))

    def _code(self, function: relax.Function) -> _Code:
        """The replacement of a function, one for all that are the same but for their weights."""
        key = tvm_ffi.StructuralKey(function.without_attr("layoutsel.subgraph"))
        if key not in self.codes:
            try:
                self.codes[key] = self._generate(function)
            except Exception as error:  # whatever a rule of TVM's stumbles over
                kind = "transform" if "layoutsel.transform" in function.attrs else "subgraph"
                name = str(function.attrs[f"layoutsel.{kind}"])
                what = f"{kind.replace('subgraph', 'sub-graph')} {name} on {self.unit!r}"
                raise BuildError(f"{what}: {error}", unit=self.unit, **{kind: name}) from error
        return self.codes[key]

    def _generate(self, function: relax.Function) -> _Code:
        """One PrimFunc where there is a layout to keep to, or a convolution; else TVM's own, which may be several."""
        attrs = function.attrs
        is_convolution = "conv" in str(attrs.get("layoutsel.anchor", ""))
        if attrs.get("layoutsel.algorithm", "") == ALGORITHM:
            task = tunable(function)
            code = tuned_code(task, self.target).with_attr("target", self.target)
            return self._single(function, task, tvm.IRModule({"main": code}))
        task = tunable(function) if _is_particular(function) or is_convolution else "plain"
        if not isinstance(task, str):
            scheduled = schedule(task.module, self.target, is_convolution=is_convolution)
            return self._single(function, task, scheduled)
        legalised = legalise(function, self.target, is_convolution=is_convolution)
        kernels = {gv: code for gv, code in legalised.functions.items() if gv.name_hint != "main"}
        added = {gv: self._add(code, gv.name_hint) for gv, code in kernels.items()}
        return _Code(body=redirect(legalised["main"], added))

    def _single(self, function: relax.Function, task: Tunable | str, module: tvm.IRModule) -> _Code:
        """The call of one PrimFunc, which is `main` of `module`."""
        assert not isinstance(task, str), "it has code"
        code = module["main"]
        anchor = str(function.attrs["layoutsel.anchor"]).rsplit(".", maxsplit=1)[-1]
        callee = self._add(code, anchor)
        params = [
            relax.Var(f"p{index}", relax.TensorType([int(n) for n in buffer.shape], buffer.dtype))
            for index, buffer in enumerate(code.params[:-1])
        ]
        called = relax.call_tir(callee, params, task.result)
        body = relax.Function(params, _bound(called, task.result), task.result)
        return _Code(body=body, packs=task.packs, constants=task.constants)

    def _add(self, code: tvm.ir.BaseFunc, name: str) -> GlobalVar:
        """Add a kernel, named by content in place of any name that a schedule left behind."""
        code = code.without_attr("global_symbol")
        digest = tvm_ffi.structural_hash(code) % 16**8
        return self.builder.add_func(code, f"{self.unit}_{name}_{digest:08x}")


def _bound(value: Expr, ty: relax.Type) -> relax.SeqExpr:
    result = relax.Var("result", ty)
    return relax.SeqExpr([relax.BindingBlock([relax.VarBinding(result, value)])], result)


def _belongs(function: tvm.ir.BaseFunc | None, unit: str) -> bool:
    attrs = function.attrs if function is not None else None
    return attrs is not None and str(attrs.get("layoutsel.unit", "")) == unit


def _is_particular(function: relax.Function) -> bool:
    """Whether a sub-graph was decided into a layout or a precision that TVM does not legalise by itself."""
    attrs = function.attrs
    if "layoutsel.subgraph" not in attrs:
        return False
    layouts: Sequence[object] = (*attrs["layoutsel.in_layouts"], *attrs["layoutsel.out_layouts"])
    return any(str(layout) != PLAIN for layout in layouts)


@tvm.transform.module_pass(opt_level=0, name="LowerGpu")
class LowerGpu(ModulePass):
    """Give every sub-graph of a device its kernels.

    ``s3(x, w)`` → ``call_tir(opencl_conv2d, (x, packed w))``, where that PrimFunc has the device's target.

    *Requires* a stage-2 module (:class:`tvm_passes.rewrite_layouts.RewriteLayouts`). *Ensures* that `main` calls no
    function of this unit any more. Where tensors lie is :class:`tvm_passes.place_devices.PlaceDevices`' business.

    Parameters
    ----------
    unit
        As decisions name it.
    target
        The device's, with its host.
    """

    def __init__(self, unit: str, target: Target) -> None:
        self.unit = unit
        self.target = target

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        """Lower `module`."""
        if not any(_belongs(function, self.unit) for function in module.functions.values()):
            return module
        return _Lowering(module, self.unit, self.target).lower()
