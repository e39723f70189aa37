"""Algorithm ``wide`` of the unit amx: register blocks of 1 × 4 tiles (pixels × channels)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvm_passes.algorithms.base import Algorithm

if TYPE_CHECKING:
    from tvm_passes.cpu.host import VectorUnit
    from tvm_passes.cpu.plan import KernelPlan
    from tvm_passes.cpu.subgraph import KernelSubgraph


def _plan(subgraph: KernelSubgraph, unit: VectorUnit) -> KernelPlan | str:
    from tvm_passes.amx.blocking import Block, Cut
    from tvm_passes.amx.plan import plan_tiles

    return plan_tiles(subgraph, unit, Cut(block=Block(pixels=1, channels=4)))


ALGORITHM = Algorithm(
    name="wide",
    about="register blocks of one tile of pixels by four of channels",
    units=("amx",),
    layouts=lambda context: context.layouts,
    plan=_plan,
    family="amx",
    rank=32,
)
