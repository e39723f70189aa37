"""Algorithm ``rows`` of the unit amx: threads share the rows of results."""

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

    return plan_tiles(subgraph, unit, Cut(by_channels=False))


ALGORITHM = Algorithm(
    name="rows",
    about="threads share the rows of results, whatever the size of the weights",
    units=("amx",),
    layouts=lambda context: context.layouts,
    plan=_plan,
    family="amx",
    has_telling_hints=True,
    rank=33,
)
