"""The contract between stages, executable: what holds after layouts are rewritten, and after units are lowered."""

from __future__ import annotations

from collections.abc import Iterator

import tvm
from tvm import relax
from tvm.ir import Call, GlobalVar

from tvm_passes.errors import BuildError
from tvm_passes.ir import main_bindings, static_shape
from tvm_passes.layout import has_form


def _calls(module: tvm.IRModule) -> Iterator[tuple[Call, relax.Function]]:
    """Calls in `main` of functions that a unit is to run."""
    for binding in main_bindings(module["main"]):
        value = binding.value
        if isinstance(value, Call) and isinstance(value.op, GlobalVar):
            function = module[value.op]
            if function.attrs and "layoutsel.unit" in function.attrs:
                yield value, function


def check_decided(module: tvm.IRModule) -> None:
    """Stage 2: every tensor that a sub-graph reads has the rank and the block of the layout that it wants.

    Raises
    ------
    BuildError
        Names the sub-graph and the first activation that does not.
    """
    for call, function in _calls(module):
        wanted = [str(layout) for layout in function.attrs["layoutsel.in_layouts"]]
        for index, (argument, layout) in enumerate(zip(call.args, wanted, strict=False)):
            shape = static_shape(argument.ty)
            if not has_form(shape, layout):
                raise BuildError(
                    f"sub-graph {_name(call, function)} reads activation {index} in {layout}: "
                    f"got shape {shape}; this is an error of RewriteLayouts",
                    subgraph=_name(call, function),
                    unit=str(function.attrs["layoutsel.unit"]),
                )


def check_lowered(module: tvm.IRModule) -> None:
    """Stage 4: no unit has left a call of its own in `main`.

    Raises
    ------
    BuildError
        Names the first sub-graph that is left, and its unit.
    """
    for call, function in _calls(module):
        unit = str(function.attrs["layoutsel.unit"])
        raise BuildError(
            f"sub-graph {_name(call, function)} was not lowered: unit {unit!r} is unknown or unavailable here. "
            f"Decide for another unit, or see `layoutsel doctor`",
            subgraph=_name(call, function),
            unit=unit,
        )


def _name(call: Call, function: relax.Function) -> str:
    return str(function.attrs.get("layoutsel.subgraph", call.op.name_hint))
