"""Algorithm ``pixels-first`` of the unit amx: the outer loop runs over blocks of pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvm_passes.algorithms.base import Algorithm

if TYPE_CHECKING:
    from tvm_passes.cpu.host import VectorUnit
    from tvm_passes.cpu.plan import KernelPlan
    from tvm_passes.cpu.subgraph import KernelSubgraph


def _plan(subgraph: KernelSubgraph, unit: VectorUnit) -> KernelPlan | str:
    from tvm_passes.amx.blocking import Cut
    from tvm_passes.amx.plan import plan_tiles

    return plan_tiles(subgraph, unit, Cut(pixels_first=True))


ALGORITHM = Algorithm(
    name="pixels-first",
    about="each block of pixels passes over all weights of its task",
    units=("amx",),
    layouts=lambda context: context.layouts,
    plan=_plan,
    family="amx",
    has_telling_hints=True,
    rank=35,
)
