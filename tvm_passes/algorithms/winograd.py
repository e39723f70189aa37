"""Algorithm ``winograd`` of the unit cpu: minimal filtering F(4×4, 3×3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvm_passes.algorithms.base import Algorithm, packed_filters

if TYPE_CHECKING:
    from tvm_passes.cpu.host import VectorUnit
    from tvm_passes.cpu.plan import KernelPlan
    from tvm_passes.cpu.subgraph import KernelSubgraph


def _plan(subgraph: KernelSubgraph, unit: VectorUnit) -> KernelPlan | str:
    from tvm_passes.cpu.plan_winograd import plan_winograd

    return plan_winograd(subgraph, unit, outputs=4)


ALGORITHM = Algorithm(
    name="winograd",
    about="3×3 convolutions by tiles of 4×4 results, with a quarter of the products; f32 alone",
    units=("cpu",),
    layouts=lambda context: packed_filters(context, (3, 3)),
    plan=_plan,
    # Six by six points of a tile for nine weights.
    packed_size=36 / 9,
    speedup=1.5,
    family="cpu.winograd",
    rank=10,
)
