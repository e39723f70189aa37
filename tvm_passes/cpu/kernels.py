"""Planners of kernels by the default algorithm: one table, by anchor."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tvm_passes.algorithms import algorithm_of
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.lrn import plan_lrn
from tvm_passes.cpu.plan import KernelPlan
from tvm_passes.cpu.plan_attention import plan_attention
from tvm_passes.cpu.plan_pooling import plan_adaptive_pool2d, plan_mean, plan_pool2d
from tvm_passes.cpu.plan_products import plan_conv2d, plan_matmul
from tvm_passes.cpu.plan_series import plan_conv1d
from tvm_passes.cpu.plan_transposed import plan_transposed
from tvm_passes.cpu.plan_volumes import plan_conv3d
from tvm_passes.cpu.pointwise import plan_concat, plan_elementwise
from tvm_passes.cpu.rows import plan_layer_norm, plan_softmax
from tvm_passes.cpu.subgraph import KernelSubgraph, is_stored
from tvm_passes.decision import DIRECT

Planner = Callable[[KernelSubgraph, VectorUnit], "KernelPlan | str"]
"""Returns the plan of a sub-graph, or the name of the operator that is in the way."""

PLANNERS: Mapping[str, Planner] = {
    "attention": plan_attention,
    "concat": plan_concat,
    "elementwise": plan_elementwise,
    "lrn": plan_lrn,
    "matmul": plan_matmul,
    "mean": plan_mean,
    "nn.adaptive_avg_pool2d": plan_adaptive_pool2d,
    "nn.avg_pool2d": plan_pool2d,
    "nn.conv1d": plan_conv1d,
    "nn.conv1d_transpose": plan_transposed,
    "nn.conv2d": plan_conv2d,
    "nn.conv2d_transpose": plan_transposed,
    "nn.conv3d": plan_conv3d,
    "nn.layer_norm": plan_layer_norm,
    "nn.max_pool2d": plan_pool2d,
    "nn.softmax": plan_softmax,
}
"""Planner by anchor."""


ANY_STORAGE = frozenset(PLANNERS) - {
    "attention",
    "nn.conv1d",
    "nn.conv1d_transpose",
    "nn.conv2d_transpose",
    "nn.conv3d",
    "nn.layer_norm",
    "nn.softmax",
}
"""Anchors whose kernels accept any storage of elements; they compute in float32."""


def plan_subgraph(subgraph: KernelSubgraph, unit: VectorUnit) -> KernelPlan | str:
    """Return the plan of a sub-graph, or the reason why no kernel computes it in its layout.

    The reason is the name of an operator, or "a scalar".
    """
    shapes = [param.shape for param in subgraph.params] + [node.shape for node in subgraph.nodes]
    if not all(shapes):
        return "a scalar"
    planner = PLANNERS.get(subgraph.anchor)
    if is_stored(subgraph) and subgraph.anchor not in ANY_STORAGE:
        return subgraph.anchor
    if subgraph.algorithm != DIRECT:
        planner = algorithm_of(subgraph.algorithm).plan
    return planner(subgraph, unit) if planner else subgraph.anchor
