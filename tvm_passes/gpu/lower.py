"""Stage 4 of a device: calls of its sub-graph functions become calls of PrimFuncs that are scheduled for it."""

from __future__ import annotations

import tvm
import tvm_ffi
from tvm import relax
from tvm.ir import Call, GlobalVar
from tvm.target import Target

from tvm_passes.errors import BuildError
from tvm_passes.gpu.schedule import legalise
from tvm_passes.inlining import hint_of, inline, label_of, redirect
from tvm_passes.ir import Expr, ModulePass, main_bindings, substitute


@tvm.transform.module_pass(opt_level=0, name="LowerGpu")
class LowerGpu(ModulePass):
    """Give every sub-graph of a device its kernels.

    ``s3(x, w)`` → ``call_tir(opencl_conv2d_relu, (x, w))``, where that PrimFunc has the device's target.

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
        if not any(self._is_ours(function) for function in module.functions.values()):
            return module
        kept = {
            gv: function
            for gv, function in module.functions.items()
            if gv.name_hint != "main" and not self._is_ours(function)
        }
        builder = relax.BlockBuilder(tvm.IRModule(kept, attrs=module.attrs))
        bodies: dict[GlobalVar, relax.Function] = {}
        mapping: dict[Expr, Expr] = {}
        main = module["main"]
        with builder.function("main", main.params, attrs=dict(main.attrs) if main.attrs else None):
            with builder.dataflow():
                for binding in main_bindings(main):
                    value = substitute(binding.value, mapping.get)
                    if isinstance(value, Call) and self._is_ours(module.functions.get(value.op)):
                        function = module[value.op]
                        if value.op not in bodies:
                            bodies[value.op] = self._body(builder, function)
                        label = label_of(function)
                        mapping[binding.var] = inline(builder, bodies[value.op], value, label)
                    else:
                        mapping[binding.var] = builder.emit(value, hint_of(binding.var))
                result = builder.emit_output(substitute(main.body.body, mapping.get))
            builder.emit_func_output(result)
        return builder.finalize()

    def _body(self, builder: relax.BlockBuilder, function: relax.Function) -> relax.Function:
        """Calls of kernels that compute a function, with the kernels added; named by content, as others' are."""
        try:
            legalised = legalise(function, self.target)
        except Exception as error:  # whatever a rule of TVM's stumbles over
            name = label_of(function).removesuffix("_").replace("_to_", ">")
            what = "transform" if ">" in name else "sub-graph"
            raise BuildError(f"{what} {name} on {self.unit!r}: {error}") from error
        mapping = {}
        for gv, code in legalised.functions.items():
            if gv.name_hint != "main":
                name = f"{self.unit}_{gv.name_hint}_{tvm_ffi.structural_hash(code) % 16**8:08x}"
                mapping[gv] = builder.add_func(code, name)
        return redirect(legalised["main"], mapping)

    def _is_ours(self, function: tvm.ir.BaseFunc | None) -> bool:
        attrs = function.attrs if function is not None else None
        return attrs is not None and str(attrs.get("layoutsel.unit", "")) == self.unit
