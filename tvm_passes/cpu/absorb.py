"""Transforms that nobody runs: the kernel before them writes its result in the layout that they would give it."""

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
    """A transform that a kernel does."""

    result: Var
    layout: str
    """Of the result."""


WritesIn = Callable[[relax.Function, str], bool]


def find_absorbed(
    module: tvm.IRModule, writes_in: WritesIn, shared: Collection[Var]
) -> Mapping[Var, Absorbed]:
    """The transforms that alone read the result of a sub-graph, by that result.

    Parameters
    ----------
    module
        Stage 3.
    writes_in
        Whether the kernel of a sub-graph can write its result in a layout.
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
        # Lanes are channels: where these lie apart, a transform does it in registers.
        channels_last = all(view(shape, layout).c == 1 for layout in (source, result))
        if channels_last and writes_in(producer, result):
            absorbed[read] = Absorbed(binding.var, result)
    return absorbed


def _function(module: tvm.IRModule, value: relax.Expr) -> relax.Function | None:
    called = value.op if isinstance(value, Call) else None
    function = module[called] if isinstance(called, GlobalVar) else None
    return function if isinstance(function, relax.Function) else None


def _is_sub_graph(function: relax.Function) -> bool:
    return "layoutsel.anchor" in function.attrs and function.attrs["layoutsel.anchor"] in WRITERS
