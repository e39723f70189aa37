"""Layout ``NCHW4c``: blocks of four channels."""

from __future__ import annotations

from tvm_passes.layouts.packed import in_blocks

LAYOUT = in_blocks(
    4,
    documentation="Blocks of 4 channels: a work-item of a GPU loads one at once.",
    generic=("cuda", "opencl"),
    device_feature=True,
)
