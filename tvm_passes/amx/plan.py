"""Plans of kernels on tiles: supported sub-graphs and decisions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from tvm_passes.algorithms import algorithm_of
from tvm_passes.amx.blocking import Cut
from tvm_passes.amx.copies import geometry_of
from tvm_passes.amx.kernel import AmxKernel
from tvm_passes.cpu.convolution import Convolution
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.plan import KernelPlan
from tvm_passes.cpu.plan_products import Product, conv2d_shape, matmul_shape, read_product
from tvm_passes.cpu.subgraph import KernelSubgraph, as_rows, is_plain
from tvm_passes.decision import DIRECT
from tvm_passes.layout import storage_of
from tvm_passes.shuffle import shuffled_order

Pack = Callable[[AmxKernel, np.ndarray], np.ndarray]
"""Packs the weights of a kernel."""


def plan_amx(subgraph: KernelSubgraph, unit: VectorUnit) -> KernelPlan | str:
    """Plan a sub-graph by its algorithm, or return the operator that is in the way."""
    if subgraph.algorithm == DIRECT:
        return plan_tiles(subgraph, unit, Cut())
    plan = algorithm_of(subgraph.algorithm).plan
    return plan(subgraph, unit) if plan else subgraph.anchor


def plan_tiles(subgraph: KernelSubgraph, unit: VectorUnit, cut: Cut) -> KernelPlan | str:
    """Plan a convolution or a product with a constant matrix on tiles.

    Parameters
    ----------
    cut
        Departures from the rules of blocking.

    Returns
    -------
    KernelPlan or str
        The plan, or the operator that is in the way.
    """
    if subgraph.anchor == "nn.conv2d":
        return _convolution(subgraph, unit, cut)
    if subgraph.anchor == "matmul":
        return _matmul(subgraph, unit, cut)
    return subgraph.anchor


def _convolution(subgraph: KernelSubgraph, unit: VectorUnit, cut: Cut) -> KernelPlan | str:
    product = read_product(subgraph, unit)
    if isinstance(product, str):
        return product
    shape = conv2d_shape(product.anchor)
    if shape is None:
        return product.anchor.operator
    return _plan(product, shape, cut, lambda kernel, weights: kernel.pack(weights))


def _matmul(subgraph: KernelSubgraph, unit: VectorUnit, cut: Cut) -> KernelPlan | str:
    product = read_product(as_rows(subgraph) if is_plain(subgraph) else subgraph, unit)
    if isinstance(product, str):
        return product
    shape = matmul_shape(product.anchor)
    if shape is None or len(product.weights.shape) > 2:
        return product.anchor.operator
    plan = _plan(
        product, shape, cut, lambda kernel, matrix: kernel.pack(matrix.T[:, :, None, None])
    )
    return plan if isinstance(plan, str) else replace(plan, subgraph=subgraph)


def _plan(product: Product, shape: Convolution, cut: Cut, pack: Pack) -> KernelPlan | str:
    """Plan the kernel of a product; a grouped one gets zero weights between different groups."""
    # A channel shuffle of the result is a permutation of the weights.
    groups, unshuffled = product.subgraph.shuffle, replace(product.subgraph, shuffle=1)
    if product.computed:  # Tiles need weights packed in pairs by numpy at build time.
        return product.anchor.operator
    order = shuffled_order(shape.out_channels, groups)
    source, result = product.source.view, unshuffled.result_view
    operands = product.epilogue.params
    whole = replace(shape, groups=1)
    if not storage_of(product.source.layout) or source.c != 1 or result.c != 1:
        return product.anchor.operator
    if shape.group_in == 1 < shape.groups or geometry_of(whole, source) is None:
        return product.anchor.operator
    if groups > 1 and not all(param.is_weight for param in operands):
        return product.anchor.operator
    kernel = AmxKernel(
        convolution=whole,
        source=source,
        result=result,
        unit=product.unit,
        epilogue=product.epilogue,
        cut=cut,
        groups=shape.groups if groups == 1 else 1,
    )
    if shape.groups == 1:
        return product.plan(kernel, partial(pack, kernel), "bfloat16")
    plan = product.plan(
        kernel, lambda weights: pack(kernel, _ungrouped(weights, shape)[order]), "bfloat16"
    )
    # Channels are third to last, except in a slope of PReLU, which has no other axis.
    shuffles = {
        param.index: partial(np.take, indices=order, axis=max(len(param.shape) - 3, 0))
        for param in operands
        if groups > 1 and product.epilogue.views[param].c
    }
    types = {param.index: plan.param_type(param) for param in operands if param.index in shuffles}
    return replace(plan, packs={**plan.packs, **shuffles}, packed={**plan.packed, **types})


def _ungrouped(weights: np.ndarray, shape: Convolution) -> np.ndarray:
    """Return weights (O, I/groups, KH, KW) as (O, I, KH, KW), with zeros between groups."""
    whole = np.zeros(
        (shape.groups, shape.group_out, shape.groups, *weights.shape[1:]), weights.dtype
    )
    each = np.arange(shape.groups)
    whole[each, :, each] = weights.reshape(shape.groups, shape.group_out, *weights.shape[1:])
    return whole.reshape(shape.out_channels, shape.in_channels, *weights.shape[2:])
