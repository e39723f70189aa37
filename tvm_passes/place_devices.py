"""Stage 4: copies between devices, where what one computes another reads."""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.ir import Call
from tvm.relax.global_info import VDevice

from tvm_passes.devices import HOST
from tvm_passes.inlining import hint_of
from tvm_passes.ir import (
    Constant,
    Expr,
    ModulePass,
    Var,
    main_bindings,
    op_name,
    rebuilding,
    substitute,
)


def device_of(function: tvm.ir.BaseFunc | None) -> str:
    """Kind of the target that a PrimFunc is for; the host's where it does not say."""
    target = function.attrs.get("target") if function is not None and function.attrs else None
    return str(target.kind.name) if target is not None else HOST


def devices_of(module: tvm.IRModule) -> tuple[str, ...]:
    """The devices that a module runs on, the host first: the order in which its virtual machine wants them."""
    found = sorted({device_of(function) for function in module.functions.values()} - {HOST})
    return (HOST, *found)


def _plain_target(module: tvm.IRModule, kind: str) -> tvm.target.Target:
    """The target of a kind that values say they lie on; with the architecture of kernels, or TVM would look for a GPU."""
    targets = (f.attrs["target"] for f in module.functions.values() if device_of(f) == kind != HOST)
    arch = next((target.attrs.get("arch") for target in targets), None)
    return tvm.target.Target({"kind": kind, "arch": str(arch)} if arch else kind)


class _Placing:
    """Re-emits `main`, remembering on which device each value lies."""

    def __init__(self, module: tvm.IRModule, outside: str) -> None:
        self.module = module
        self.outside = outside
        names = devices_of(module)
        self.vdevices = {name: VDevice(_plain_target(module, name), 0, "global") for name in names}
        self.builder = rebuilding(module)
        self.mapping: dict[Expr, Expr] = {}
        self.devices: dict[Expr, str] = {}
        self.copies: dict[tuple[Expr, str], Expr] = {}

    def at(self, value: Expr, device: str) -> Expr:
        """`value`, of the new `main`, on `device`: copied at most once."""
        if isinstance(value, relax.Tuple):
            return relax.Tuple([self.at(field, device) for field in value.fields])
        source = self.devices.get(value, HOST)
        if source == device:
            return value
        if HOST not in (source, device):
            return self.at(self.at(value, HOST), device)
        if (value, device) not in self.copies:
            copied = self.builder.emit(relax.op.to_vdevice(value, self.vdevices[device]))
            self.copies[value, device] = copied
            self.devices[copied] = device
        return self.copies[value, device]

    def all_at(self, expr: Expr, device: str) -> Expr:
        """`expr` of the old `main` with everything that it reads on `device`."""

        def replace(leaf: Expr) -> Expr | None:
            if isinstance(leaf, Var):
                return self.at(self.mapping.get(leaf, leaf), device)
            is_elsewhere = isinstance(leaf, Constant) and device != HOST
            return self.at(leaf, device) if is_elsewhere else None

        return substitute(expr, replace)

    def binding(self, binding: relax.VarBinding) -> Expr:
        """Emit a binding's value on its device, under its name: traces go by that."""
        value, hint = binding.value, hint_of(binding.var)
        if isinstance(value, Var):
            return self.mapping.get(value, value)
        if isinstance(value, relax.Tuple):  # nothing is computed: its fields stay where they are
            return substitute(value, self.mapping.get)
        if isinstance(value, relax.TupleGetItem):
            source = self.mapping[value.tuple_value]
            if isinstance(source, relax.Tuple):
                return source.fields[value.index]
            result = self.builder.emit(relax.TupleGetItem(source, value.index), hint)
            self.devices[result] = self.devices.get(source, HOST)
            return result
        kernel = self.module[value.args[0]] if op_name(value).startswith("call_tir") else None
        device = device_of(kernel)
        placed = self.all_at(value, device)
        if isinstance(placed, Call):
            # The host's types say so too: TVM replaces a reshape by one whose type it takes from its argument.
            types = [self._there(ty, device) for ty in placed.ty_args]
            placed = Call(placed.op, placed.args, placed.attrs, types)
        result = self.builder.emit(placed, hint)
        self.devices[result] = device
        return result

    def _there(self, ty: relax.Type, device: str) -> relax.Type:
        if isinstance(ty, relax.TupleType):
            return relax.TupleType([self._there(field, device) for field in ty.fields])
        return relax.TensorType(ty.shape, ty.dtype, self.vdevices[device])

    def place(self) -> tvm.IRModule:
        """The module with its copies."""
        main = self.module["main"]
        params = [relax.Var(p.name, self._there(p.ty, self.outside)) for p in main.params]
        self.mapping = dict(zip(main.params, params, strict=True))
        self.devices = dict.fromkeys(params, self.outside)
        with self.builder.function("main", params, attrs=dict(main.attrs) if main.attrs else None):
            with self.builder.dataflow():
                for binding in main_bindings(main):
                    self.mapping[binding.var] = self.binding(binding)
                result = self.builder.emit_output(self.all_at(main.body.body, self.outside))
            self.builder.emit_func_output(result)
        placed = self.builder.finalize()
        placed.update_global_info("vdevice", list(self.vdevices.values()))
        return placed


@tvm.transform.module_pass(opt_level=0, name="PlaceDevices")
class PlaceDevices(ModulePass):
    """Copy what one device computes and another reads, once for each tensor and reading device.

    ``call_tir(cpu_add, (call_tir(opencl_conv2d, (x, w)), y))`` →
    ``call_tir(cpu_add, (to_vdevice(call_tir(opencl_conv2d, (to_vdevice(x), to_vdevice(w)))), y))``.

    *Requires* stage 4: every unit is lowered, and PrimFuncs of devices have their target. *Ensures* that the tensors that
    `main` takes and gives lie `outside`. A module of the host alone stays as it is.

    Parameters
    ----------
    outside
        Kind of the target of the device that `main`'s callers work on.
    """

    def __init__(self, outside: str = HOST) -> None:
        self.outside = outside

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        """Place the values of `module`."""
        if len(devices_of(module)) == 1:
            return module
        return _Placing(module, self.outside).place()
