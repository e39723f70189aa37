"""Kernels that slide a window over each channel separately: pooling, depth-wise convolution.

Lanes are channels. As in :mod:`tvm_passes.cpu.convolution`, taps in the horizontal padding are
omitted from the generated code, and the bounds of a loop exclude those in the vertical padding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tvm_passes.cpu import emit
from tvm_passes.cpu.convolution import Convolution
from tvm_passes.cpu.epilogue import Epilogue
from tvm_passes.cpu.filters import Filters
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.tiling import even_split
from tvm_passes.cpu.view import View
from tvm_passes.layout import BF16

_LOWEST = -math.inf
"""Start value of a maximum of float32."""
_LOWEST_INTEGER = emit.ORDERED_LOWEST
"""Start value of a maximum of bfloat16's bits as ordered integers."""
_SPARE = 8
"""Registers that remain for loaded values if columns are combined first."""
_EVEN_LINES = 8
"""Rows per thread above which an uneven distribution does not matter."""
_TASK_STEPS = 4096
"""Minimum number of vector operations of a task."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """A sliding window; `shape` holds its extents, with one group per channel."""

    shape: Convolution
    """Extents, strides and padding."""
    kind: str
    """``max``, ``average`` (padding is not counted), ``average_padded`` or ``depthwise``."""
    source: View
    """Memory layout of the source."""
    result: View
    """Memory layout of the result."""
    unit: VectorUnit
    """Vector instructions and threads of the machine."""
    epilogue: Epilogue
    """Operators that are applied to the results."""
    filters: Filters | None = None
    """Positions of depth-wise weights computed at run time; None for constants, packed at build
    time.
    """

    @cached_property
    def lanes(self) -> int:
        """Channels of a vector; vectors do not cross blocks."""
        views = [self.source, self.result]
        blocks = [view.block for view in views if view.chunk != view.block * view.c]
        lanes = self.unit.lanes * (2 if self.as_integers else 1)
        return min([lanes, *blocks, *self.epilogue.blocks])

    @cached_property
    def as_integers(self) -> bool:
        """True if a maximum of bfloat16 is computed on their bits.

        Twice as many values fit a register, and none is converted.
        """
        views = [self.source, self.result]
        is_alone = self.epilogue.result is self.epilogue.anchor
        return self.kind == "max" and is_alone and all((v.storage, v.c) == (BF16, 1) for v in views)

    @property
    def dtype(self) -> str:
        """Type of the combined values."""
        return "int16" if self.as_integers else "float32"

    @property
    def start(self) -> int | float:
        """Neutral element of the combination."""
        if self.kind != "max":
            return 0.0
        return _LOWEST_INTEGER if self.as_integers else _LOWEST

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Pixels of each tile of a row."""
        widest = max(min(8, self.unit.registers // 2), 1)
        taps = self.shape.kernel[1]
        widest = max(1, min(widest, 64 // taps))
        return even_split(self.shape.out_width, -(-self.shape.out_width // widest))

    @cached_property
    def by_columns(self) -> bool:
        """True if each column of a tile's input is first combined over the kernel's rows.

        The pixels of the tile share the result.
        """
        stride, reach = self.shape.strides[1], (self.shape.kernel[1] - 1) * self.shape.dilation[1]
        columns = (max(self.widths) - 1) * stride + reach + 1
        return self.kind != "depthwise" and columns <= self.unit.registers - _SPARE

    @cached_property
    def bands(self) -> int:
        """Number of bands of rows that threads share; each traverses its channel vectors in turn.

        0 if bands would be uneven, or if all vectors of a row should precede the next row.
        """
        lines = self.shape.batch * self.shape.out_height
        uneven = lines % self.unit.threads and lines < _EVEN_LINES * self.unit.threads
        return (
            0
            if uneven or self.tasks < self.unit.threads or self._shares_lines
            else self.unit.threads
        )

    @property
    def _shares_lines(self) -> bool:
        """True if channel vectors share cache lines, and that matters.

        A depth-wise kernel loads other weights for each vector; only images beyond the second-level
        cache are worth that.
        """
        shape, source = self.shape, self.source
        if source.c != 1 or source.chunk != source.block:
            return False
        size = 2 if source.storage == BF16 else 4
        nbytes = size * shape.in_channels * shape.in_height * shape.in_width
        return self.kind != "depthwise" or nbytes > self.unit.l2_bytes * 3 // 4

    @property
    def vectors(self) -> int:
        """Number of channel vectors."""
        return -(-self.shape.out_channels // self.lanes)

    @property
    def padded_channels(self) -> int:
        """Number of channels, padded to whole vectors."""
        return self.vectors * self.lanes

    def pack(self, weights: np.ndarray) -> np.ndarray:
        """Pack depth-wise weights (C, 1, KH, KW) as (channel vector, row, column, lane), flat."""
        channels, _, kernel_h, kernel_w = weights.shape
        full = np.zeros((self.padded_channels, kernel_h, kernel_w), weights.dtype)
        full[:channels] = weights[:, 0]
        blocked = full.reshape(self.vectors, self.lanes, kernel_h, kernel_w).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(blocked).reshape(-1)

    @property
    def reads_filters(self) -> bool:
        """True if run-time weights are read unpacked: packing costs as much as one use of each."""
        tiles = self.shape.batch * self.shape.out_height * len(self.widths)
        return self.filters is not None and tiles == 1

    @property
    def repacks(self) -> bool:
        """True if weights are packed in each run."""
        return self.filters is not None and not self.reads_filters

    @property
    def packed_size(self) -> int:
        """Number of elements of the packed weights."""
        return self.padded_channels * self.shape.kernel[0] * self.shape.kernel[1]

    @property
    def hints(self) -> Mapping[str, float]:
        """Blocking, as features for cost models."""
        return {
            "kernel_window": 1.0,
            "tasks": self.tasks,
            "tile_width": self.shape.out_width / len(self.widths),
            "lanes": self.lanes,
            "lanes_filled": self.shape.out_channels / self.padded_channels,
            "taps": self.shape.kernel[0] * self.shape.kernel[1],
            **({"repacked_bytes": 4.0 * self.packed_size} if self.repacks else {}),
        }

    @property
    def rows(self) -> int:
        """Number of rows of results, counted once for each channel vector."""
        return self.shape.batch * self.vectors * self.shape.out_height

    @property
    def tasks(self) -> int:
        """Number of independent tasks, each of sufficient size."""
        steps = self.shape.out_width * self.shape.kernel[0] * self.shape.kernel[1]
        per_task = min(max(_TASK_STEPS // steps, 1), -(-self.rows // self.unit.threads))
        return min(-(-self.rows // per_task), emit.MOST_SHARES)
