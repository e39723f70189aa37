"""Layout ``NCHW32c``: blocks of thirty-two channels."""

from __future__ import annotations

from tvm_passes.layouts.packed import in_blocks

LAYOUT = in_blocks(
    32,
    documentation="Blocks of 32 channels: one is a row of an AMX tile in bfloat16.",
    feature=4,
)
