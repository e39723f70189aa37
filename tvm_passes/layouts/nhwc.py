"""Layout ``NHWC``: channels last."""

from __future__ import annotations

from tvm_passes.efficiency import Efficiency
from tvm_passes.layouts.entry import Layout

LAYOUT = Layout(
    name="NHWC",
    documentation="Channels last: the channels of a pixel are contiguous.",
    to_physical=lambda n, c, h, w: (n, h, w, c),
    to_logical=lambda n, h, w, c: (n, c, h, w),
    generic=("cuda", "opencl"),
    efficiencies={
        "onednn": Efficiency(compute=0.85, bandwidth=0.8),
        "cpu": Efficiency(compute=0.45, bandwidth=0.7),
    },
    feature=1,
)
