"""The compute unit ``cpu``: the cores of the host, by kernels and schedules of this package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvm_passes.backends import planners
from tvm_passes.deferred import Deferred
from tvm_passes.efficiency import Efficiency
from tvm_passes.units.entry import HOST_UNIT, Backend

if TYPE_CHECKING:
    import tvm


def _lower(target: tvm.target.Target) -> tvm.transform.Pass:
    from tvm_passes.cpu.lower import LowerCpu

    return LowerCpu(target, planners())


_LEGALITY = "tvm_passes.cpu.legality"

BACKEND = Backend(
    name=HOST_UNIT,
    supports=Deferred(f"{_LEGALITY}:supports"),
    lower=_lower,
    planner=Deferred("tvm_passes.cpu.kernels:plan_subgraph"),
    takes_rest=True,
    hints=Deferred(f"{_LEGALITY}:hints"),
    generic=Deferred(f"{_LEGALITY}:generic"),
    record=Deferred(f"{_LEGALITY}:record"),
    code=("tvm_passes.cpu.lower:LowerCpu",),
    efficiency=Efficiency(compute=0.25, bandwidth=0.6),
    boundary_feature=0,
    rank=0,
)
