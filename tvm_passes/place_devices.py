"""Stage 4: copies between devices for values whose producer and consumer run on different ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import tvm
from tvm import relax
from tvm.ir import Call
from tvm.relax.global_info import VDevice

from tvm_passes.devices import HOST_DEVICE, DeviceId, is_direct
from tvm_passes.ir import Constant, Expr, ModulePass, Var, device_index, op_name, substitute
from tvm_passes.main_rewriter import MainRewriter


def device_of(function: tvm.ir.BaseFunc | None) -> DeviceId:
    """Return the device of a PrimFunc's target; the host for a function without one."""
    target = function.attrs.get("target") if function is not None and function.attrs else None
    if target is None:
        return HOST_DEVICE
    return DeviceId.of_target(str(target.kind.name), device_index(function))


def device_of_value(vdevice: VDevice) -> DeviceId:
    """Return the device that TVM's type of a value names."""
    return DeviceId.of_target(str(vdevice.target.kind.name), int(vdevice.vdevice_id))


def devices_of(module: tvm.IRModule) -> tuple[DeviceId, ...]:
    """Return the devices of a module, the host first, in the order of its virtual machine."""
    found = {device_of(function) for function in module.functions.values()}
    return (HOST_DEVICE, *sorted(found - {HOST_DEVICE}))


def _arch(module: tvm.IRModule, device: DeviceId) -> str:
    """Return the architecture of a device's kernels; empty if they have none."""
    kernels = (f for f in module.functions.values() if device_of(f) == device != HOST_DEVICE)
    arch = next((kernel.attrs["target"].attrs.get("arch") for kernel in kernels), None)
    return str(arch or "")


@cache
def _vdevice(device: DeviceId, arch: str) -> VDevice:
    """Return the device for the types of values.

    TVM identifies a device by the object, so that modules which are joined later must share it.
    Without an architecture, TVM would look for a GPU on this machine.
    """
    kind = device.target_kind
    target = tvm.target.Target({"kind": kind, "arch": arch} if arch else kind)
    return VDevice(target, device.index, "global")


class _Placing(MainRewriter):
    def __init__(self, module: tvm.IRModule, to_place: PlaceDevices) -> None:
        super().__init__(module)
        self.to_place = to_place
        self.vdevices = {one: _vdevice(one, _arch(module, one)) for one in devices_of(module)}
        self.devices: dict[Expr, DeviceId] = {}
        """Device of each value of the new `main`."""
        self.copies: dict[tuple[Expr, DeviceId], Expr] = {}
        """Copy of a value on a device."""

    def params(self) -> list[Var]:
        places = self.to_place.inputs or (self.to_place.outside,) * len(self.main.params)
        pairs = list(zip(self.main.params, places, strict=True))
        params = [relax.Var(param.name, self._placed(param.ty, at)) for param, at in pairs]
        self.devices.update(zip(params, places, strict=True))
        return params

    def rewrite(self, binding: relax.VarBinding) -> Expr:
        value = binding.value
        if isinstance(value, Var | relax.Tuple):
            # Nothing is computed: a tuple's fields stay on their devices.
            return self.renewed(value)
        if isinstance(value, relax.TupleGetItem):
            return self._field(binding, value)
        return self._computed(binding, value)

    def result(self, expr: Expr) -> Expr:
        places = self.to_place.results
        if not places:
            return self._all_at(expr, self.to_place.outside)
        whole = self.renewed(expr)
        if not isinstance(whole, relax.Tuple):
            return self._at(whole, places[0])
        fields = zip(whole.fields, places, strict=True)
        return relax.Tuple([self._at(field, at) for field, at in fields])

    def _field(self, binding: relax.VarBinding, value: relax.TupleGetItem) -> Expr:
        source = self.mapping[value.tuple_value]
        if isinstance(source, relax.Tuple):
            return source.fields[value.index]
        result = self.copy(binding)
        self.devices[result] = self.devices.get(source, HOST_DEVICE)
        return result

    def _computed(self, binding: relax.VarBinding, value: Expr) -> Expr:
        """Emit a value on the device of its kernel, under the old name, which traces use."""
        kernel = self.module[value.args[0]] if op_name(value).startswith("call_tir") else None
        device = device_of(kernel)
        placed = self._all_at(value, device)
        if isinstance(placed, Call):
            # The host's types name their device too: TVM replaces a reshape by one whose type is
            # its argument's.
            types = [self._placed(ty, device) for ty in placed.ty_args]
            placed = Call(placed.op, placed.args, placed.attrs, types)
        result = self.builder.emit(placed, binding.var.name)
        self.devices[result] = device
        return result

    def _at(self, value: Expr, device: DeviceId) -> Expr:
        """Return the new `value` on `device`, copied at most once.

        Copies between different kinds of devices pass through the host.
        """
        if isinstance(value, relax.Tuple):
            return relax.Tuple([self._at(field, device) for field in value.fields])
        source = self.devices.get(value, HOST_DEVICE)
        if source == device:
            return value
        if not is_direct(source, device):
            return self._at(self._at(value, HOST_DEVICE), device)
        if (value, device) not in self.copies:
            copied = self.builder.emit(relax.op.to_vdevice(value, self.vdevices[device]))
            self.copies[value, device] = copied
            self.devices[copied] = device
        return self.copies[value, device]

    def _all_at(self, expr: Expr, device: DeviceId) -> Expr:
        """Return `expr` of the old `main` with all its operands on `device`."""

        def replace(leaf: Expr) -> Expr | None:
            if isinstance(leaf, Var):
                return self._at(self.mapping.get(leaf, leaf), device)
            is_elsewhere = isinstance(leaf, Constant) and device != HOST_DEVICE
            return self._at(leaf, device) if is_elsewhere else None

        return substitute(expr, replace)

    def _placed(self, ty: relax.Type, device: DeviceId) -> relax.Type:
        if isinstance(ty, relax.TupleType):
            return relax.TupleType([self._placed(field, device) for field in ty.fields])
        return relax.TensorType(ty.shape, ty.dtype, self.vdevices[device])


@tvm.transform.module_pass(opt_level=0, name="PlaceDevices")
@dataclass(frozen=True)
class PlaceDevices(ModulePass):
    """Copy tensors from their producer's device to each consumer's device, once per device.

    ``call_tir(cpu_add, (call_tir(opencl_conv2d, (x, w)), y))`` →
    ``call_tir(cpu_add, (to_vdevice(call_tir(opencl_conv2d, (to_vdevice(x), to_vdevice(w)))), y))``.

    *Requires* stage 4: every unit is lowered, and PrimFuncs of devices have their target. *Ensures*
    that parameters and results of `main` are on `outside`, or on devices of their own. A module of
    the host alone stays unchanged.
    """

    outside: DeviceId = HOST_DEVICE
    """Device of the callers of `main`."""
    inputs: tuple[DeviceId, ...] = ()
    """Device of each parameter; empty for `outside`."""
    results: tuple[DeviceId, ...] = ()
    """Device of each result; empty for `outside`."""

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        """Place the values of `module`."""
        if len(devices_of(module)) == 1:
            return module
        placing = _Placing(module, self)
        placed = placing.run()
        placed.update_global_info("vdevice", list(placing.vdevices.values()))
        return placed
