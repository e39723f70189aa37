"""Absorbed layout transforms: the kernel before one writes its result in the transform's layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import tvm
from tvm import relax
from tvm.ir import Call, GlobalVar

from tvm_passes.cpu.place import WRITERS
from tvm_passes.cpu.view import is_addressed, view
from tvm_passes.ir import Var, leaves, main_bindings
from tvm_passes.layout import logical_shape


@dataclass(frozen=True)
class Absorbed:
    """A layout transform that the kernel before it performs."""

    result: Var
    """Result of the transform."""
    layout: str
    """Layout of the result."""


WritesIn = Callable[[relax.Function, str], bool]
"""Returns whether the kernel of a sub-graph function can write its result in a layout."""


def find_absorbed(
    module: tvm.IRModule, writes_in: WritesIn, shared: Collection[Var]
) -> Mapping[Var, Absorbed]:
    """Find the transforms that are the only consumer of a sub-graph's result, by that result.

    Parameters
    ----------
    module
        Stage 3.
    writes_in
        Returns whether the kernel of a sub-graph can write its result in a layout.
    shared
        Results that other sub-graphs write into as well.
    """
    bindings = main_bindings(module["main"])
    made = {b.var: f for b in bindings if (f := _function(module, b.value)) is not None}
    uses = Counter(leaf for b in bindings for leaf in leaves(b.value) if isinstance(leaf, Var))
    uses.update(leaf for leaf in leaves(module["main"].body.body) if isinstance(leaf, Var))
    absorbed = {}
    for binding in bindings:
        function = made.get(binding.var)
        if function is None or "layoutsel.transform" not in function.attrs:
            continue
        (read,) = binding.value.args
        producer = made.get(read)
        if producer is None or uses[read] != 1 or read in shared or not _is_sub_graph(producer):
            continue
        source, result = str(function.attrs["layoutsel.transform"]).split(">")
        if not (is_addressed(source) and is_addressed(result)):
            continue
        shape = logical_shape([int(extent) for extent in function.params[0].ty.shape], source)
        # Lanes are channels. If these are not contiguous, a transform moves them in registers
        # instead.
        channels_last = all(view(shape, layout).c == 1 for layout in (source, result))
        if channels_last and writes_in(producer, result):
            absorbed[read] = Absorbed(binding.var, result)
    return absorbed


def _function(module: tvm.IRModule, value: relax.Expr) -> relax.Function | None:
    """Return the function that a value calls, or None."""
    called = value.op if isinstance(value, Call) else None
    function = module[called] if isinstance(called, GlobalVar) else None
    return function if isinstance(function, relax.Function) else None


def _is_sub_graph(function: relax.Function) -> bool:
    """Return whether a function is a sub-graph whose kernels can write into other tensors."""
    return "layoutsel.anchor" in function.attrs and function.attrs["layoutsel.anchor"] in WRITERS
