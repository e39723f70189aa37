"""NVIDIA's GPUs, by TVM's schedules; products in bfloat16 run on tensor cores."""

from __future__ import annotations

from functools import partial

from layoutsel.precision import BF16, F32
from layoutsel.units.base import Unit
from layoutsel.units.layouts import device_offers
from tvm_passes.backends import BACKENDS

UNIT = Unit(
    backend=BACKENDS["cuda"],
    offers=partial(device_offers, "cuda", precisions=(F32, BF16)),
    precisions=(F32, BF16),
    by_default=False,
)
