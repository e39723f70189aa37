"""Which sub-graphs run on tiles, and under which decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from tvm import relax

from tvm_passes.amx.blocking import ALGORITHMS
from tvm_passes.amx.geometry import geometry_of
from tvm_passes.amx.kernel import AmxKernel
from tvm_passes.amx.machine import unavailable
from tvm_passes.cpu.convolution import Convolution
from tvm_passes.cpu.host import VectorUnit, host_target, vector_unit
from tvm_passes.cpu.plan import Plan
from tvm_passes.cpu.plan_products import Product, conv2d_shape, matmul_shape, read_product
from tvm_passes.cpu.subgraph import Subgraph, as_rows, is_plain, read_subgraph
from tvm_passes.cpu.view import view
from tvm_passes.decision import Decision
from tvm_passes.errors import Decline
from tvm_passes.layout import storage_of

Pack = Callable[[AmxKernel, np.ndarray], np.ndarray]

LAYOUTS = ("NCHW", "NHWC", "NCHW32c")
"""Channels come last, as in matrices, which have no other layout than the plain one; or in blocks, each a tile's row."""
PRECISIONS = ("bf16", "split-bf16")

_REFERENCE_UNIT = VectorUnit(lanes=16, registers=32, threads=1)


def plan_amx(subgraph: Subgraph, unit: VectorUnit) -> Plan | str:
    """Plan of a convolution or a product with a constant matrix, or what is in the way."""
    if subgraph.anchor == "nn.conv2d":
        return _convolution(subgraph, unit)
    if subgraph.anchor == "matmul":
        return _matmul(subgraph, unit)
    return subgraph.anchor


def _convolution(subgraph: Subgraph, unit: VectorUnit) -> Plan | str:
    product = read_product(subgraph, unit)
    if isinstance(product, str):
        return product
    shape = conv2d_shape(product.anchor)
    if shape is None:
        return product.anchor.operator
    return _plan(product, shape, lambda kernel, weights: kernel.pack(weights))


def _matmul(subgraph: Subgraph, unit: VectorUnit) -> Plan | str:
    product = read_product(as_rows(subgraph) if is_plain(subgraph) else subgraph, unit)
    if isinstance(product, str):
        return product
    shape = matmul_shape(product.anchor)
    if shape is None:
        return product.anchor.operator
    plan = _plan(product, shape, lambda kernel, matrix: kernel.pack(matrix.T[:, :, None, None]))
    return plan if isinstance(plan, str) else replace(plan, subgraph=subgraph)


def _plan(product: Product, shape: Convolution, pack: Pack) -> Plan | str:
    source = view(product.source.shape, product.source.layout)
    result = view(product.anchor.shape, product.subgraph.out_layouts[0])
    if not storage_of(product.source.layout) or source.c != 1 or result.c != 1:
        return product.anchor.operator
    if shape.groups != 1 or geometry_of(shape, source) is None:
        return product.anchor.operator
    kernel = AmxKernel(
        convolution=shape,
        source=source,
        result=result,
        unit=product.unit,
        epilogue=product.epilogue,
        algorithm=product.subgraph.algorithm,
    )
    return product.plan(kernel, partial(pack, kernel), "bfloat16")


def supports(function: relax.Function, decision: Decision) -> Decline | None:
    """Why a stage-1 sub-graph cannot run on tiles as `decision` says; None if it can."""
    obstacle = _obstacle(function, decision)
    if obstacle is None:
        return None
    operator, got, expected = obstacle
    return Decline(
        subgraph=str(function.attrs["layoutsel.subgraph"]),
        operator=operator,
        decision=str(decision),
        got=got,
        expected=expected,
    )


def _obstacle(function: relax.Function, decision: Decision) -> tuple[str, str, str] | None:
    anchor = str(function.attrs["layoutsel.anchor"])
    reason = unavailable()
    if reason is not None:
        return anchor, reason, "a CPU with AMX"
    for field, known in (
        ("layout", LAYOUTS),
        ("precision", PRECISIONS),
        ("algorithm", tuple(ALGORITHMS)),
    ):
        value = getattr(decision, field)
        if value not in known:
            return anchor, f"{field} {value}", f"one of {', '.join(known)}"
    subgraph = read_subgraph(function, decision)
    if subgraph is None:
        return anchor, "a body with several results", "a single result"
    if decision.layout != "NCHW" and is_plain(subgraph):
        return anchor, f"no {decision.layout} tensor that fits", "layout NCHW"
    plan = plan_amx(subgraph, _REFERENCE_UNIT)
    if isinstance(plan, str):
        return (
            plan,
            "what tiles do not compute in this layout",
            "a convolution in NHWC or a matrix product, with constant weights, ungrouped",
        )
    return None


def hints(function: relax.Function, decision: Decision) -> Mapping[str, float]:
    """What a cost model may want to know of a supported sub-graph's kernel."""
    subgraph = read_subgraph(function, decision)
    plan = plan_amx(subgraph, vector_unit(host_target())) if subgraph else ""
    return plan.hints if isinstance(plan, Plan) else {}
