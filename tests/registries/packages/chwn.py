"""A layout from outside the package: the batch is innermost."""

from tvm_passes.layouts.entry import Layout

LAYOUT = Layout(
    name="CHWN",
    documentation="Batch last: the same pixel of all images is contiguous.",
    to_physical=lambda n, c, h, w: (c, h, w, n),
    to_logical=lambda c, h, w, n: (n, c, h, w),
    restriction=lambda shape: "a batch of one" if shape[0] == 1 else None,
    generic=("cpu",),
)
