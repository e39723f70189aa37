"""Executable contract between stages: properties after layout rewriting and after lowering."""

from __future__ import annotations

from collections.abc import Iterator

import tvm
from tvm import relax
from tvm.ir import Call, GlobalVar

from tvm_passes.errors import BuildError
from tvm_passes.ir import main_bindings, static_shape
from tvm_passes.layout import has_form


def _calls(module: tvm.IRModule) -> Iterator[tuple[Call, relax.Function]]:
    """Yield the calls in `main` of functions that have a unit."""
    for binding in main_bindings(module["main"]):
        value = binding.value
        if isinstance(value, Call) and isinstance(value.op, GlobalVar):
            function = module[value.op]
            if function.attrs and "layoutsel.unit" in function.attrs:
                yield value, function


def check_decided(module: tvm.IRModule) -> None:
    """Check stage 2: the operands of sub-graphs have the rank and the blocks of their layouts.

    Raises
    ------
    BuildError
        If one does not; names the sub-graph and the activation.
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
    """Check stage 4: `main` calls no function of a unit.

    Raises
    ------
    BuildError
        If it does; names the first such sub-graph, and its unit.
    """
    for call, function in _calls(module):
        unit = str(function.attrs["layoutsel.unit"])
        raise BuildError(
            f"sub-graph {_name(call, function)} was not lowered: unit {unit!r} is unknown or "
            f"unavailable here. Decide for another unit, or see `layoutsel doctor`",
            subgraph=_name(call, function),
            unit=unit,
        )


def _name(call: Call, function: relax.Function) -> str:
    """Return the identifier of the called sub-graph."""
    return str(function.attrs.get("layoutsel.subgraph", call.op.name_hint))
