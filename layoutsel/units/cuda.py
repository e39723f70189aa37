"""NVIDIA's GPUs, by TVM's schedules; products in bfloat16 run on tensor cores."""

from __future__ import annotations

from functools import partial

from layoutsel.units.base import Unit
from layoutsel.units.layouts import device_offers
from tvm_passes.units.cuda import BACKEND

UNIT = Unit(
    backend=BACKEND,
    offers=partial(device_offers, "cuda"),
    precisions=BACKEND.abilities.precisions,
    by_default=False,
)
"""The entry of the table of units."""
