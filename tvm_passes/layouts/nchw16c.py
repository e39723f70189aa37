"""Layout ``NCHW16c``: blocks of sixteen channels."""

from __future__ import annotations

from tvm_passes.efficiency import Efficiency
from tvm_passes.layouts.packed import in_blocks

LAYOUT = in_blocks(
    16,
    documentation="Blocks of 16 channels: one fills a vector register of 512 bits with f32.",
    efficiencies={
        "onednn": Efficiency(compute=0.78, bandwidth=0.8),
        "cpu": Efficiency(compute=0.5, bandwidth=0.7),
    },
    feature=3,
)
