"""Kernel of a direct convolution: its blocking, and the code that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tvm.tirx.script import builder as T

from tvm_passes.cpu.convolution import BlockedConvolution
from tvm_passes.cpu.convolution_emitter import ConvolutionEmitter
from tvm_passes.cpu.emit import Buffer
from tvm_passes.cpu.packing import emit_packing


@dataclass(frozen=True, kw_only=True)
class ConvolutionKernel(BlockedConvolution):
    """A blocked convolution that emits its code; weights computed at run time are packed first."""

    def emit(
        self, buffers: Mapping[int, Buffer], source: Buffer, weights: Buffer, out: Buffer
    ) -> None:
        """Emit the kernel.

        Parameters
        ----------
        buffers
            Flat buffer of each parameter by its index, for the epilogue.
        source
            The input.
        weights
            Result of :meth:`pack`, or weights computed at run time at the positions of
            :attr:`filters`.
        out
            The result.
        """
        if self.filters is not None:
            packed = T.alloc_buffer((self.packed_size,), "float32")
            emit_packing(self, self.filters, weights, packed)
            weights = packed
        ConvolutionEmitter(self, buffers, source, weights, out).emit()
