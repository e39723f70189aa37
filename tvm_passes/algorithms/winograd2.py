"""Algorithm ``winograd2`` of the unit cpu: minimal filtering F(2×2, 3×3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvm_passes.algorithms.base import Algorithm, packed_filters

if TYPE_CHECKING:
    from tvm_passes.cpu.host import VectorUnit
    from tvm_passes.cpu.plan import KernelPlan
    from tvm_passes.cpu.subgraph import KernelSubgraph


def _plan(subgraph: KernelSubgraph, unit: VectorUnit) -> KernelPlan | str:
    from tvm_passes.cpu.plan_winograd import plan_winograd

    return plan_winograd(subgraph, unit, outputs=2)


ALGORITHM = Algorithm(
    name="winograd2",
    about="3×3 convolutions by tiles of 2×2 results: more products than winograd, fewer weights",
    units=("cpu",),
    layouts=lambda context: packed_filters(context, (3, 3)),
    plan=_plan,
    # Four by four points of a tile for nine weights.
    packed_size=16 / 9,
    family="cpu.winograd",
    rank=11,
)
