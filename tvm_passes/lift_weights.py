"""Stage 4 to 5: weights as parameters, so that an artifact can map them from its file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import tvm
from tvm import relax

from tvm_passes.devices import HOST_DEVICE, DeviceId
from tvm_passes.ir import (
    Constant,
    Expr,
    ModulePass,
    Var,
    entry_points,
    leaves,
    main_bindings,
    op_name,
)
from tvm_passes.main_rewriter import MainRewriter
from tvm_passes.place_devices import device_of_value


@dataclass(frozen=True)
class Weight:
    """A constant of `main`, and the device of its consumer."""

    constant: Constant
    """Values of the constant."""

    device: DeviceId
    """Device of the values; not the host if `main` copies the constant to a device in every run."""


def weights_of(expr: Expr) -> Iterator[Weight]:
    """Yield the constants in a value of `main`; for a copy to a device, the copied constant."""
    if op_name(expr) == "to_vdevice" and isinstance(expr.args[0], Constant):
        yield Weight(expr.args[0], device_of_value(expr.attrs.dst_vdevice))
        return
    for leaf in leaves(expr):
        if isinstance(leaf, Constant):
            yield Weight(leaf, HOST_DEVICE)


def _weight_types(module: tvm.IRModule) -> dict[Weight, relax.Type]:
    """Return the constants of all entry points, each with the type of the field that replaces it.

    They are in order of first use.
    """
    types: dict[Weight, relax.Type] = {}
    for binding in (b for name in entry_points(module) for b in main_bindings(module[name])):
        for weight in weights_of(binding.value):
            own = weight.constant.ty if weight.device == HOST_DEVICE else binding.var.ty
            types.setdefault(weight, own)
    return types


def collect_weights(module: tvm.IRModule) -> list[Weight]:
    """Return the constants of `main` in the order of the tuple that :class:`LiftWeights` adds."""
    return list(_weight_types(module))


def weights_read(module: tvm.IRModule) -> dict[str, tuple[int, ...]]:
    """Return the indices of the weights in :func:`collect_weights` that each entry point reads."""
    place = {weight: index for index, weight in enumerate(collect_weights(module))}
    return {
        name: tuple(
            sorted({place[w] for b in main_bindings(module[name]) for w in weights_of(b.value)})
        )
        for name in entry_points(module)
    }


class _Lifting(MainRewriter):
    def __init__(self, module: tvm.IRModule, name: str, types: Mapping[Weight, relax.Type]) -> None:
        super().__init__(module, name=name)
        self.types = types
        """Types of the weights that this function reads, in the order of its tuple."""
        self.packed = relax.Var("weights", relax.TupleType(list(self.types.values())))
        self.fields: dict[Weight, Var] = {}
        """Variable of the new `main` that holds a weight."""

    def params(self) -> list[Var]:
        return [*self.main.params, self.packed]

    def body(self, bindings: Sequence[relax.VarBinding]) -> None:
        for index, weight in enumerate(self.types):
            self.fields[weight] = self.builder.emit(relax.TupleGetItem(self.packed, index))
            if weight.device == HOST_DEVICE:
                self.mapping[weight.constant] = self.fields[weight]
        super().body(bindings)

    def rewrite(self, binding: relax.VarBinding) -> Expr:
        weight = next(weights_of(binding.value), None)
        if weight is None or weight.device == HOST_DEVICE:
            return self.copy(binding)
        return self.fields[weight]


@tvm.transform.module_pass(opt_level=0, name="LiftWeights")
class LiftWeights(ModulePass):
    """Turn the constants of `main` into one tuple parameter after the model's inputs.

    If a module has several entry points, each takes the constants that it reads itself, as the
    virtual machine checks the type of every field in every call.

    ``main(x): f(x, const)`` → ``main(x, weights): f(x, weights[0])``; ``to_vdevice(const)`` →
    ``weights[1]``, which the caller must provide on that device.

    *Requires* a `main` without control flow. *Ensures* that :func:`collect_weights` of the original
    module lists all weights, and :func:`weights_read` the fields of each tuple.
    """

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        """Lift the weights of `module`."""
        types = _weight_types(module)
        weights = list(types)
        for name, read in weights_read(module).items():
            own = {weights[index]: types[weights[index]] for index in read}
            module = _Lifting(module, name, own).run()
        return module
