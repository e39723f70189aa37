"""Layout ``NCHW8c``: blocks of eight channels."""

from __future__ import annotations

from tvm_passes.efficiency import Efficiency
from tvm_passes.layouts.packed import in_blocks

LAYOUT = in_blocks(
    8,
    documentation="Blocks of 8 channels: one fills a vector register of 256 bits with f32.",
    efficiencies={"onednn": Efficiency(compute=0.5, bandwidth=0.8)},
    feature=2,
)
