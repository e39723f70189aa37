"""Algorithm ``direct``: the default of every unit."""

from __future__ import annotations

from tvm_passes.algorithms.base import Algorithm
from tvm_passes.decision import DIRECT

ALGORITHM = Algorithm(
    name=DIRECT,
    about="the unit's usual kernel, such as a loop over all products of a convolution",
    units=(),
    layouts=lambda context: context.layouts,
    rank=0,
)
