"""OpenCL devices, by TVM's schedules for GPUs."""

from __future__ import annotations

from collections.abc import Iterator

from layoutsel.model.graph import Subgraph
from layoutsel.units.base import Unit
from tvm_passes.backends import BACKENDS
from tvm_passes.decision import Decision


def _offers(_subgraph: Subgraph) -> Iterator[Decision]:
    yield Decision(unit="opencl")


# Not by default: its candidates are measured, which takes a while, and on a CPU's driver it gains nothing.
UNIT = Unit(backend=BACKENDS["opencl"], offers=_offers, by_default=False)
