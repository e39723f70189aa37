"""Kernel of a sliding window: its shape, and the code that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tvm.tirx.script import builder as T

from tvm_passes.cpu.emit import Buffer
from tvm_passes.cpu.packing import emit_depthwise_packing
from tvm_passes.cpu.window import Window
from tvm_passes.cpu.window_emitter import WindowEmitter


@dataclass(frozen=True, kw_only=True)
class WindowKernel(Window):
    """A sliding window that emits its code; weights computed at run time are packed first."""

    def emit(
        self,
        buffers: Mapping[int, Buffer],
        source: Buffer,
        weights: Buffer | None,
        out: Buffer,
    ) -> None:
        """Emit the kernel; `weights` are packed by :meth:`pack`, or at :attr:`filters`."""
        if self.filters is not None and self.repacks:
            packed = T.alloc_buffer((self.packed_size,), "float32")
            emit_depthwise_packing(self.shape, self.lanes, self.filters, weights, packed)
            weights = packed
        WindowEmitter(self, buffers, source, weights, out).emit()
