"""Which sub-graphs run on tiles, and under which decisions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from tvm_passes.amx.copies import geometry_of
from tvm_passes.amx.kernel import AmxKernel
from tvm_passes.cpu.convolution import Convolution
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.plan import Plan
from tvm_passes.cpu.plan_products import Product, conv2d_shape, matmul_shape, read_product
from tvm_passes.cpu.subgraph import Subgraph, as_rows, is_plain
from tvm_passes.layout import storage_of

Pack = Callable[[AmxKernel, np.ndarray], np.ndarray]


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
    source = product.source.view
    result = product.subgraph.result_view
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
