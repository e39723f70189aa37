"""Algorithm ``alt1`` of oneDNN: its second-best implementation of the anchor."""

from __future__ import annotations

from tvm_passes.algorithms.base import Algorithm

# Measured on the convolutions of ResNet-50 with AVX-512: 0.9 to 1.3 times the time of the first
# in NHWC, 1.1 to 1.7 times in NCHW16c. The implementations after it take twice as long. So it is
# offered for no sub-graph.
ALGORITHM = Algorithm(
    name="alt1",
    about="the second implementation of oneDNN for the anchor, in place of the first",
    units=("onednn",),
    skips=1,
    family="onednn",
    rank=40,
)
