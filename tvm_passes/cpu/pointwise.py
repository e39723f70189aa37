"""Plans of element-wise sub-graphs and concatenations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from tvm_passes.cpu.emit import Buffer
from tvm_passes.cpu.epilogue import Epilogue, read_epilogue
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.nest import At, Body, nest_for, run_nests
from tvm_passes.cpu.plan import KernelPlan
from tvm_passes.cpu.subgraph import KernelSubgraph, OperatorCall, Param
from tvm_passes.cpu.view import View, four_dimensional


def _flattened(
    epilogue: Epilogue, result: View, size: int
) -> tuple[Epilogue, View] | tuple[None, View]:
    """Return the same epilogue on one long vector, with the result's view; None if impossible.

    Every operand must have the result's form or be a scalar. Channels must not be in blocks:
    threads would share the blocks instead of the rows.
    """
    if result.low or result.chunk != result.block * result.c:
        return None, result
    flat = replace(result, n=0, block=size, chunk=size, c=1, h=0, w=0)
    views: dict[Param, View] = {}
    for param, where in epilogue.views.items():
        if where == result:
            views[param] = flat
        elif prod(param.shape) == 1:
            views[param] = replace(where, n=0, block=1, chunk=0, c=0, h=0, w=0)
        else:
            return None, result
    return replace(epilogue, views=views), flat


def plan_elementwise(subgraph: KernelSubgraph, unit: VectorUnit) -> KernelPlan | str:
    """Plan a sub-graph of element-wise operators only."""
    epilogue = read_epilogue(subgraph, None)
    if isinstance(epilogue, str):
        return epilogue
    full = subgraph.results[0].shape
    result = subgraph.result_view
    shape = four_dimensional(full)
    if subgraph.within is None:
        flat, result = _flattened(epilogue, result, prod(full))
        if flat is not None:
            epilogue, shape = flat, (1, prod(full), 1, 1)
    nest = nest_for(shape, [result, *epilogue.views.values()], unit)

    def emit(buffers: Mapping[int, Buffer], out: Buffer) -> None:
        def body(at: At, lanes: int, axis: str) -> None:
            value = epilogue.evaluate(None, at, lanes, buffers, axis)
            result.store(out, value, result.offset(*at), lanes, axis)

        run_nests([nest], [body])

    return KernelPlan(subgraph=subgraph, emit=emit, hints=nest.hints)


def concat_inputs(anchor: OperatorCall) -> list[Param]:
    """Return the inputs of a concatenation of channels; none for other concatenations."""
    rank = len(anchor.shape)
    inputs = [arg for arg in anchor.args if isinstance(arg, Param) and arg.dtype == "float32"]
    channels = int(anchor.attrs.axis) % rank == (1 if rank == 4 else rank - 1)
    return inputs if channels and len(inputs) == len(anchor.args) else []


def plan_concat(
    subgraph: KernelSubgraph, unit: VectorUnit, absent: frozenset[int] = frozenset()
) -> KernelPlan | str:
    """Plan a concatenation of channels with its epilogue.

    Parameters
    ----------
    absent
        Indices of parameters that are already in their position: the kernel does not receive them.
    """
    anchor = subgraph.nodes[0]
    inputs = concat_inputs(anchor)
    if not inputs:
        return anchor.operator
    epilogue = read_epilogue(subgraph, anchor)
    if isinstance(epilogue, str):
        return epilogue
    result = subgraph.result_view
    n, _, h, w = four_dimensional(anchor.shape)
    sources, nests, first = [], [], 0
    for arg in inputs:
        channels = four_dimensional(arg.shape)[1]
        if arg.index not in absent:
            sources.append((arg, arg.view))
            views = [result, arg.view, *epilogue.views.values()]
            nests.append(nest_for((n, channels, h, w), views, unit, first_channel=first))
            if first % nests[-1].lanes and epilogue.blocks + (
                (result.block,) if _packed(result) else ()
            ):
                return anchor.operator
        first += channels

    def emit(buffers: Mapping[int, Buffer], out: Buffer) -> None:
        def body_of(arg: Param, source: View, start: int) -> Body:
            def body(at: At, lanes: int, axis: str) -> None:
                n, c, y, x = at
                own = source.offset(n, c - start, y, x)
                value = source.load(buffers[arg.index], own, lanes, axis)
                value = epilogue.evaluate(value, at, lanes, buffers, axis)
                result.store(out, value, result.offset(*at), lanes, axis)

            return body

        bodies = [
            body_of(arg, source, nest.first_channel)
            for (arg, source), nest in zip(sources, nests, strict=True)
        ]
        run_nests(nests, bodies)

    hints = {
        **nests[0].hints,
        "tasks": sum(nest.hints["tasks"] for nest in nests),
        "lanes": min(nest.lanes for nest in nests),
        "nests": len(nests),
    }
    taken = tuple(param for param in subgraph.params if param.index not in absent)
    return KernelPlan(subgraph=replace(subgraph, params=taken), emit=emit, hints=hints)


def _packed(where: View) -> bool:
    """Return whether channels are in blocks."""
    return where.chunk != where.block * where.c
