"""The compute unit ``onednn``: partitions of primitives with fused post-operations."""

from __future__ import annotations

from tvm_passes import onednn
from tvm_passes.amx.machine import not_x86
from tvm_passes.efficiency import Efficiency
from tvm_passes.onednn.orders import ORDERS
from tvm_passes.targets import CrossTarget
from tvm_passes.units.entry import Backend


def _unfit(machine: CrossTarget) -> str | None:
    return onednn.available() or not_x86(machine.host)


BACKEND = Backend(
    name="onednn",
    supports=onednn.supports,
    lower=lambda _target: onednn.LowerOnednn(),
    hints=onednn.hints,
    codegen="layoutsel_onednn",
    orders=ORDERS,
    unavailable=onednn.available,
    unfit=_unfit,
    missing=onednn.available,
    plugin="liblayoutsel_onednn",
    package="onednn-cpu-gomp",
    code=("tvm_passes.onednn:LowerOnednn",),
    efficiency=Efficiency(compute=0.3, bandwidth=0.5),
    boundary_feature=1,
    rank=1,
)
