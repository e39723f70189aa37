"""The compute unit ``amx``: products of bfloat16 tiles, which the CPU's pass lowers."""

from __future__ import annotations

from tvm_passes import amx
from tvm_passes.efficiency import Efficiency
from tvm_passes.units.entry import Backend

BACKEND = Backend(
    name="amx",
    supports=amx.supports,
    planner=amx.plan_amx,
    hints=amx.hints,
    unavailable=amx.unavailable,
    unfit=lambda machine: amx.unfit(machine.host),
    missing=amx.unavailable,
    code=("tvm_passes.amx:plan_amx",),
    efficiency=Efficiency(compute=0.3, bandwidth=0.5),
    boundary_feature=2,
    rank=2,
)
