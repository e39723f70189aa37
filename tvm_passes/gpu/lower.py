"""Stage 4 of a device: replace calls of sub-graph functions by calls of scheduled PrimFuncs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.ir import Call, GlobalVar
from tvm.target import Target

from tvm_passes.algorithms import algorithm_of
from tvm_passes.decision import DIRECT
from tvm_passes.devices import kernel_prefix
from tvm_passes.errors import BuildError
from tvm_passes.gpu.schedule import legalise, schedule
from tvm_passes.inlining import inline, label_of, redirect
from tvm_passes.ir import Expr, ModulePass, constant_of, device_index, with_device_index
from tvm_passes.layout import PLAIN
from tvm_passes.main_rewriter import MainRewriter
from tvm_passes.tunable import Pack, Tunable, tunable
from tvm_passes.tuned import tuned_code
from tvm_passes.weight_pool import packed_by


@dataclass(frozen=True, kw_only=True)
class _Code:
    """Replacement of a sub-graph function: calls of PrimFuncs that are inlined into its caller."""

    body: relax.Function
    """Function of the sub-graph function's parameters, followed by `constants`."""
    packs: Mapping[int, Pack] = field(default_factory=dict)
    """Packing of each weight and constant that `body` expects in another form, by index."""
    constants: tuple[np.ndarray, ...] = ()
    """Values of further arguments."""


class _Lowering(MainRewriter):
    """Rewriter of the main function that replaces calls of one unit's sub-graph functions."""

    def __init__(self, module: tvm.IRModule, unit: str, target_of: Callable[[int], Target]) -> None:
        super().__init__(module, keep=lambda function: not _belongs(function, unit))
        self.unit = unit
        self.target_of = cache(target_of)
        self.codes: dict[tvm_ffi.StructuralKey, _Code] = {}

    def rewrite(self, binding: relax.VarBinding) -> Expr:
        value = binding.value
        if isinstance(value, Call) and _belongs(self.module.functions.get(value.op), self.unit):
            return self._call(self.renewed(value))
        return self.copy(binding)

    def _call(self, call: Call) -> Expr:
        """Emit the lowered form of a call over new values; returns its result."""
        function = self.module[call.op]
        code = self._code(function)
        constants = [constant_of(constant) for constant in code.constants]
        arguments = [
            packed_by(code.packs[index], argument) if index in code.packs else argument
            for index, argument in enumerate([*call.args, *constants])
        ]
        return inline(self.builder, code.body, arguments, label_of(function))

    def _code(self, function: relax.Function) -> _Code:
        """Return the replacement of a function; functions that differ only in weights share one."""
        key = tvm_ffi.StructuralKey(function.without_attr("layoutsel.subgraph"))
        if key not in self.codes:
            try:
                self.codes[key] = self._generate(function)
            except Exception as error:  # TVM's rules raise many types of exceptions.
                kind = "transform" if "layoutsel.transform" in function.attrs else "subgraph"
                name = str(function.attrs[f"layoutsel.{kind}"])
                what = f"{kind.replace('subgraph', 'sub-graph')} {name} on {self.unit!r}"
                raise BuildError(f"{what}: {error}", unit=self.unit, **{kind: name}) from error
        return self.codes[key]

    def _generate(self, function: relax.Function) -> _Code:
        """Generate the code of a function.

        A convolution or a decided layout is one PrimFunc; everything else is TVM's own code, of one
        or more PrimFuncs.
        """
        attrs, target = function.attrs, self.target_of(device_index(function))
        is_convolution = "conv" in str(attrs.get("layoutsel.anchor", ""))
        if algorithm_of(str(attrs.get("layoutsel.algorithm", DIRECT))).recorded:
            task = tunable(function)
            code = tuned_code(task, target).with_attr("target", target)
            return self._single(function, task, tvm.IRModule({"main": code}))
        task = tunable(function) if _is_particular(function) or is_convolution else "plain"
        if not isinstance(task, str):
            scheduled = schedule(task.module, target, is_convolution=is_convolution)
            return self._single(function, task, scheduled)
        legalised = legalise(function, target, is_convolution=is_convolution)
        kernels = {gv: code for gv, code in legalised.functions.items() if gv.name_hint != "main"}
        index = device_index(function)
        added = {gv: self._add(code, gv.name_hint, index) for gv, code in kernels.items()}
        return _Code(body=redirect(legalised["main"], added))

    def _single(self, function: relax.Function, task: Tunable | str, module: tvm.IRModule) -> _Code:
        """Return the call of one PrimFunc, `main` of `module`."""
        assert not isinstance(task, str), "it has code"
        code = module["main"]
        anchor = str(function.attrs["layoutsel.anchor"]).rsplit(".", maxsplit=1)[-1]
        callee = self._add(code, anchor, device_index(function))
        params = [
            relax.Var(f"p{index}", relax.TensorType([int(n) for n in buffer.shape], buffer.dtype))
            for index, buffer in enumerate(code.params[:-1])
        ]
        called = relax.call_tir(callee, params, task.result)
        body = relax.Function(params, _bound(called, task.result), task.result)
        return _Code(body=body, packs=task.packs, constants=task.constants)

    def _add(self, code: tvm.ir.BaseFunc, name: str, index: int) -> GlobalVar:
        """Add a device's kernel under a name that is made of its content.

        The name replaces any name that a schedule gave it.
        """
        code = with_device_index(code.without_attr("global_symbol"), index)
        digest = tvm_ffi.structural_hash(code) % 16**8
        return self.builder.add_func(code, f"{kernel_prefix(self.unit, index)}{name}_{digest:08x}")


def _bound(value: Expr, ty: relax.Type) -> relax.SeqExpr:
    result = relax.Var("result", ty)
    return relax.SeqExpr([relax.BindingBlock([relax.VarBinding(result, value)])], result)


def _belongs(function: tvm.ir.BaseFunc | None, unit: str) -> bool:
    """Return whether a function is a sub-graph function of `unit`."""
    attrs = function.attrs if function is not None else None
    return attrs is not None and str(attrs.get("layoutsel.unit", "")) == unit


def _is_particular(function: relax.Function) -> bool:
    """Return whether a sub-graph has a layout or precision that TVM does not legalise itself."""
    attrs = function.attrs
    if "layoutsel.subgraph" not in attrs:
        return False
    layouts: Sequence[object] = (*attrs["layoutsel.in_layouts"], *attrs["layoutsel.out_layouts"])
    return any(str(layout) != PLAIN for layout in layouts)


@tvm.transform.module_pass(opt_level=0, name="LowerGpu")
@dataclass(frozen=True)
class LowerGpu(ModulePass):
    """Replace calls of the sub-graphs of one unit's devices by calls of their kernels.

    ``s3(x, w)`` → ``call_tir(opencl_conv2d, (x, packed w))``; that PrimFunc has the device's
    target.

    *Requires* a stage-2 module (:class:`tvm_passes.rewrite_layouts.RewriteLayouts`). *Ensures* that
    `main` calls no function of this unit. :class:`tvm_passes.place_devices.PlaceDevices` inserts
    copies between devices.
    """

    unit: str
    """Name of the unit in decisions."""

    target_of: Callable[[int], Target]
    """Target of each of the unit's devices by index, including its host."""

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        """Replace the calls of this unit's sub-graphs in `module`."""
        if not any(_belongs(function, self.unit) for function in module.functions.values()):
            return module
        return _Lowering(module, self.unit, self.target_of).run()
