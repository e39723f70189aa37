"""NVIDIA's GPUs, by TVM's schedules; products in bfloat16 run on tensor cores."""

from __future__ import annotations

from functools import partial

from layoutsel.units.base import Unit
from layoutsel.units.layouts import device_offers
from tvm_passes.backends import BACKENDS
from tvm_passes.gpu.legality import ABILITIES

UNIT = Unit(
    backend=BACKENDS["cuda"],
    offers=partial(device_offers, "cuda"),
    precisions=ABILITIES["cuda"].precisions,
    by_default=False,
)
