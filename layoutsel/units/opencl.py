"""OpenCL devices, by TVM's schedules for GPUs."""

from __future__ import annotations

from functools import partial

from layoutsel.units.base import Unit
from layoutsel.units.layouts import device_offers
from tvm_passes.units.opencl import BACKEND

# Not used by default: its candidates are measured, which takes a while, and on a CPU's driver it
# gains nothing.
UNIT = Unit(backend=BACKEND, offers=partial(device_offers, "opencl"), by_default=False)
"""The entry of the table of units."""
