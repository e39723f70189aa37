"""Stage 4 → 5: take the weights out of the code, so that an artifact can map them from its file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import tvm
from tvm import relax

from tvm_passes.devices import HOST
from tvm_passes.ir import (
    Constant,
    Expr,
    ModulePass,
    leaves,
    main_bindings,
    op_name,
    rebuilding,
    substitute,
)


@dataclass(frozen=True)
class Weight:
    """A constant of `main`, and where it is read."""

    constant: Constant
    device: str
    """Kind of the device's target: a weight that :class:`tvm_passes.place_devices.PlaceDevices` would copy in every run."""


def weights_of(expr: Expr) -> Iterator[Weight]:
    """The constants in a value of `main`, or the one that it copies to a device."""
    if op_name(expr) == "to_vdevice" and isinstance(expr.args[0], Constant):
        yield Weight(expr.args[0], str(expr.attrs.dst_vdevice.target.kind.name))
        return
    for leaf in leaves(expr):
        if isinstance(leaf, Constant):
            yield Weight(leaf, HOST)


def collect_weights(module: tvm.IRModule) -> list[Weight]:
    """The constants of `main` that :class:`LiftWeights` lifts, in its order."""
    bindings = main_bindings(module["main"])
    return list(dict.fromkeys(weight for b in bindings for weight in weights_of(b.value)))


@tvm.transform.module_pass(opt_level=0, name="LiftWeights")
class LiftWeights(ModulePass):
    """Turn the constants of `main` into one tuple parameter behind the model's inputs.

    ``main(x): f(x, const)`` → ``main(x, weights): f(x, weights[0])``; ``to_vdevice(const)`` → ``weights[1]``, which has to
    lie there.

    *Requires* a straight-line `main`. *Ensures* that ``collect_weights`` of the module before gives the tuple's fields.
    """

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        """Lift the weights of `module`."""
        main = module["main"]
        bindings = main_bindings(main)
        types: dict[Weight, relax.Type] = {}
        for binding in bindings:
            for weight in weights_of(binding.value):
                own = weight.constant.ty if weight.device == HOST else binding.var.ty
                types.setdefault(weight, own)
        builder = rebuilding(module)
        packed = relax.Var("weights", relax.TupleType(list(types.values())))
        attrs = dict(main.attrs) if main.attrs else {}
        mapping: dict[Expr, Expr] = {}
        with builder.function("main", [*main.params, packed], attrs=attrs):
            with builder.dataflow():
                fields = {
                    weight: builder.emit(relax.TupleGetItem(packed, index))
                    for index, weight in enumerate(types)
                }
                mapping.update({w.constant: v for w, v in fields.items() if w.device == HOST})
                for binding in bindings:
                    (moved, *_) = (*weights_of(binding.value), None)
                    if moved is not None and moved.device != HOST:
                        mapping[binding.var] = fields[moved]
                    else:
                        mapping[binding.var] = builder.emit(substitute(binding.value, mapping.get))
                result = builder.emit_output(substitute(main.body.body, mapping.get))
            builder.emit_func_output(result)
        return builder.finalize()
