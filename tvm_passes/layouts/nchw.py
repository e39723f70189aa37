"""Layout ``NCHW``: row-major."""

from __future__ import annotations

from tvm_passes.efficiency import Efficiency
from tvm_passes.layouts.entry import Layout

LAYOUT = Layout(
    name="NCHW",
    documentation="Row-major, as imported; tensors that are not four-dimensional have no other.",
    to_physical=lambda *axes: axes,
    to_logical=lambda *axes: axes,
    any_rank=True,
    generic=("cpu", "cuda", "opencl"),
    efficiencies={"onednn": Efficiency(compute=0.45, bandwidth=0.7)},
    feature=0,
)
