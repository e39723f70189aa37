"""Plan of a convolution by Winograd's minimal filtering."""

from __future__ import annotations

from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.plan import KernelPlan
from tvm_passes.cpu.plan_products import conv2d_shape, read_product
from tvm_passes.cpu.subgraph import KernelSubgraph, is_stored
from tvm_passes.cpu.winograd import WinogradKernel
from tvm_passes.cpu.winograd_convolution import is_eligible


def plan_winograd(subgraph: KernelSubgraph, unit: VectorUnit, *, outputs: int) -> KernelPlan | str:
    """Plan a convolution with its epilogue, or return the operator that is in the way.

    Parameters
    ----------
    outputs
        Results per tile and axis.
    """
    if subgraph.anchor != "nn.conv2d":
        return subgraph.anchor
    product = read_product(subgraph, unit)
    if isinstance(product, str):
        return product
    shape = conv2d_shape(product.anchor)
    # A shuffle is not eligible; weights are transformed in numpy at build time.
    if shape is None or product.computed or is_stored(subgraph) or not is_eligible(shape):
        return product.anchor.operator
    source, result = product.source.view, subgraph.result_view
    if source.c != 1 or result.c != 1:
        return product.anchor.operator
    kernel = WinogradKernel(
        convolution=shape,
        outputs=outputs,
        source=source,
        result=result,
        unit=unit,
        epilogue=product.epilogue,
    )
    return product.plan(kernel, kernel.pack)
