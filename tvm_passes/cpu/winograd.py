"""Kernels of convolutions by Winograd's algorithm: :mod:`tvm_passes.cpu.winograd_convolution`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tvm_passes.cpu.emit import Buffer
from tvm_passes.cpu.winograd_convolution import WinogradConvolution
from tvm_passes.cpu.winograd_emitter import WinogradEmitter


@dataclass(frozen=True, kw_only=True)
class WinogradKernel(WinogradConvolution):
    """A convolution by Winograd's algorithm that emits its code."""

    def emit(
        self, buffers: Mapping[int, Buffer], source: Buffer, weights: Buffer, out: Buffer
    ) -> None:
        """Emit the kernel.

        The arguments are those of :meth:`ConvolutionKernel.emit`.
        """
        WinogradEmitter(self, buffers, source, weights, out).emit()
