"""Back ends of devices with a memory of their own: TVM's code by schedules for GPUs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from tvm_passes.deferred import Deferred
from tvm_passes.devices import count_devices
from tvm_passes.efficiency import Efficiency
from tvm_passes.targets import absent_on_cross_target
from tvm_passes.units.entry import Backend

if TYPE_CHECKING:
    import tvm

CODE = (
    "tvm_passes.gpu.lower:LowerGpu",
    "tvm_passes.gpu.target:device_target",
    "tvm_passes.legalize:*",
)
"""Functions through which the code of devices is reached, each ``module:name``.

Measurements depend on a digest of this code. The name ``*`` denotes a whole module.
"""

_EFFICIENCY = Efficiency(compute=0.3, bandwidth=0.6, spread=1.0)
"""Assumed shares, as no GPU has been measured.

In TVM's schedules of products, and of convolutions as products, a work-item reads 8 floats of
shared memory for 16 multiply-adds. NVIDIA's SMs, with 32 and 128 per cycle, then attain at most
half.
"""


def device_backend(
    kind: str,
    *,
    unavailable: Callable[[], str | None],
    identity: Callable[[int], str],
    **further: Any,
) -> Backend:
    """Make the back end of a unit with the name of its target's kind."""

    def lower(host: tvm.target.Target) -> tvm.transform.Pass:
        from tvm_passes.gpu.lower import LowerGpu
        from tvm_passes.gpu.target import device_target

        return LowerGpu(kind, partial(device_target, kind, host))

    return Backend(
        name=kind,
        supports=Deferred("tvm_passes.gpu.legality:supports"),
        record=Deferred("tvm_passes.gpu.legality:record"),
        lower=lower,
        device=kind,
        identity=identity,
        count=partial(count_devices, kind),
        unavailable=unavailable,
        unfit=lambda _machine: absent_on_cross_target(kind),
        legalises=True,
        efficiency=_EFFICIENCY,
        **further,
    )
