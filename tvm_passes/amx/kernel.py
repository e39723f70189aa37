"""Kernel of a product on tiles: its blocking, and the code that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tvm_passes.amx.emitter import Emitter
from tvm_passes.amx.tiled_product import TiledProduct
from tvm_passes.cpu.emit import Buffer


@dataclass(frozen=True, kw_only=True)
class AmxKernel(TiledProduct):
    """A tiled product that emits its code."""

    def emit(
        self, buffers: Mapping[int, Buffer], source: Buffer, weights: Buffer, out: Buffer
    ) -> None:
        """Emit the kernel.

        The arguments are those of :meth:`tvm_passes.cpu.convolution_kernel.ConvolutionKernel.emit`.
        """
        Emitter(self, buffers, source, weights, out).emit()
