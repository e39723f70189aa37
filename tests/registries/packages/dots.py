"""An algorithm from outside the package: pointwise convolutions, one dot product for each result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tvm_passes.algorithms import Algorithm, CandidateContext

if TYPE_CHECKING:
    from tvm_passes.cpu.convolution import Convolution
    from tvm_passes.cpu.host import VectorUnit
    from tvm_passes.cpu.plan import KernelPlan
    from tvm_passes.cpu.plan_products import Product
    from tvm_passes.cpu.subgraph import KernelSubgraph


@dataclass(frozen=True, kw_only=True)
class Dots:
    """A pointwise convolution whose weights lie as one row for each output channel."""

    product: Product
    shape: Convolution

    @property
    def packed_size(self) -> int:
        """Elements of the weights."""
        return self.shape.out_channels * self.shape.in_channels

    @property
    def hints(self) -> Mapping[str, float]:
        """Facts for cost models, of which only the number of tasks is known to ours."""
        return {"kernel_dots": 1.0, "tasks": float(self.shape.out_channels)}

    def pack(self, weights: np.ndarray) -> np.ndarray:
        """Weights (O, I, 1, 1) as rows."""
        return np.ascontiguousarray(weights, "float32").reshape(-1)

    def emit(self, buffers: Mapping[int, Any], source: Any, weights: Any, out: Any) -> None:
        """Emit a loop over output channels for threads, and one over pixels within."""
        from tvm_passes.cpu import emit

        conv = self.shape
        with emit.parallel(conv.out_channels) as channel, emit.serial(conv.out_height) as row:
            self._row(buffers, source, weights, out, channel, row)

    def _row(self, buffers, source, weights, out, channel, row):
        from tvm_passes.cpu import emit
        from tvm_passes.cpu.emit import Accumulator, load, store

        conv, epilogue = self.shape, self.product.epilogue
        reads, writes = self.product.source.view, self.product.subgraph.result_view
        with emit.serial(conv.out_width) as column:
            total = Accumulator(1)
            total.zero()
            with emit.serial(conv.in_channels) as depth:
                value = load(source, reads.offset(0, depth, row, column))
                weight = load(weights, channel * conv.in_channels + depth)
                total.set(total.value + value * weight)
            place = (0, channel, row, column)
            result = epilogue.evaluate(total.value, place, 1, buffers)
            store(out, result, writes.offset(*place), 1)


def _plan(subgraph: KernelSubgraph, unit: VectorUnit) -> KernelPlan | str:
    from tvm_passes.cpu.plan_products import conv2d_shape, read_product
    from tvm_passes.cpu.subgraph import is_plain, is_stored

    if subgraph.anchor != "nn.conv2d" or not is_plain(subgraph) or is_stored(subgraph):
        return subgraph.anchor
    product = read_product(subgraph, unit)
    if isinstance(product, str):
        return product
    shape = conv2d_shape(product.anchor)
    if shape is None or product.computed or shape.batch > 1 or shape.groups > 1:
        return subgraph.anchor
    if (shape.kernel, shape.strides, shape.pad_top, shape.pad_left) != ((1, 1), (1, 1), 0, 0):
        return subgraph.anchor
    if (shape.out_height, shape.out_width) != (shape.in_height, shape.in_width):
        return subgraph.anchor
    kernel = Dots(product=product, shape=shape)
    return product.plan(kernel, kernel.pack)


def _layouts(context: CandidateContext) -> tuple[str, ...]:
    filters = [shape[2:] for shape in context.weights[:1]]
    is_pointwise = context.anchor == "nn.conv2d" and filters == [(1, 1)]
    return context.layouts[:1] if is_pointwise and context.precision == "f32" else ()


ALGORITHM = Algorithm(
    name="dots",
    about="pointwise convolutions, one dot product for each result",
    units=("cpu",),
    layouts=_layouts,
    plan=_plan,
    speedup=0.125,
)
