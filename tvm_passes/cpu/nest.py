"""Loops over a tensor, a vector at a time, along the contiguous axis.

Threads share the rows of an image, and the first thread has the first rows, as in most kernels of
this package. A thread then reads data that it wrote itself, from its own core's cache. Planes of
NCHW are shared as wholes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm_passes.cpu import emit
from tvm_passes.cpu.emit import TirExpr, bind
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.view import View
from tvm_passes.layout import BF16

At = tuple[TirExpr, TirExpr, TirExpr, TirExpr]
"""Position (n, c, h, w) in a tensor."""
Body = Callable[[At, int, str], None]
"""Emits the computation of some lanes from ``(n, c, h, w)`` on, along axis ``c`` or ``w``."""

_TASK_ELEMENTS = 8192
"""Minimum number of elements of a task; below it, starting threads costs more than it gains."""


@dataclass(frozen=True, kw_only=True)
class Nest:
    """Loops over a box of a tensor: all of it, or a range of its channels."""

    shape: tuple[int, int, int, int]
    """Extents (n, c, h, w) of the box."""
    first_channel: int
    """First channel of the box."""
    axis: str
    """Axis of the lanes, ``c`` or ``w``."""
    lanes: int
    """Elements of a vector."""
    mergeable: bool
    """True if rows are contiguous in every tensor of the body."""

    @property
    def _vectors(self) -> int:
        """Vectors of channels, or planes if lanes are pixels."""
        return -(-self.shape[1] // self.lanes) if self.axis == "c" else self.shape[1]

    @property
    def _rows(self) -> tuple[int, int]:
        """Rows, and pixels per row, after merging."""
        _, _, h, w = self.shape
        if self.mergeable and self.axis == "w":
            return 1, h * w
        return h, w

    @property
    def work_items(self) -> int:
        """Number of (image, vector of channels, row) triples."""
        return self.shape[0] * self._vectors * self._rows[0]

    @property
    def hints(self) -> dict[str, float]:
        """Blocking, as features for cost models."""
        return {
            "kernel_nest": 1.0,
            "tasks": self.tasks,
            "lanes": self.lanes,
            "across_channels": float(self.axis == "c"),
            "mergeable": float(self.mergeable),
        }

    @property
    def tasks(self) -> int:
        """Number of independent tasks, each of sufficient size."""
        n, c, h, w = self.shape
        elements = max(n * c * h * w // self.work_items, 1)
        return min(-(-self.work_items // max(_TASK_ELEMENTS // elements, 1)), emit.MOST_SHARES)

    def emit_share(self, share: TirExpr, shares: int, body: Body) -> None:
        """Emit the loops over one of `shares` equal shares."""
        first, count = emit.share(self.work_items, share, shares)
        with emit.serial(count) as offset:
            self._item(bind(first + offset), body)

    def _item(self, item: TirExpr, body: Body) -> None:
        """Emit the pixels of one (image, vector of channels, row) triple."""
        rows, _ = self._rows
        if self.axis == "w":
            y = bind(item % rows)
            c = bind(item // rows % self.shape[1])
            n = bind(item // (rows * self.shape[1]))
            self._columns((n, c + self.first_channel, y), body)
            return
        vector, y = bind(item % self._vectors), bind(item // self._vectors % rows)
        n = bind(item // (rows * self._vectors))
        rest = self.shape[1] % self.lanes
        full = self.shape[1] // self.lanes

        def pixels(lanes: int) -> None:
            with emit.serial(self.shape[3]) as x:
                body((n, bind(vector * self.lanes + self.first_channel), y, x), lanes, "c")

        if not rest:
            pixels(self.lanes)
        elif not full:
            pixels(rest)
        else:
            emit.when(vector < full, lambda: pixels(self.lanes), lambda: pixels(rest))

    def _columns(self, at: tuple[TirExpr, TirExpr, TirExpr], body: Body) -> None:
        """Emit one row in vectors of pixels."""
        n, c, y = at
        _, width = self._rows
        full, rest = divmod(width, self.lanes)
        if full:
            with emit.serial(full) as x:
                body((n, c, y, bind(x * self.lanes)), self.lanes, "w")
        if rest:
            body((n, c, y, full * self.lanes), rest, "w")


def nest_for(
    shape: tuple[int, int, int, int],
    views: Sequence[View],
    unit: VectorUnit,
    *,
    first_channel: int = 0,
) -> Nest:
    """Choose the loops for a box of `shape`.

    Parameters
    ----------
    shape
        Extents of the box.
    views
        Memory layout of every tensor of the body, the result's first.
    first_channel
        First channel of the box in the result.
    """
    result = views[0]
    mergeable = all(view.h == view.w * shape[3] for view in views)
    # For bfloat16, a whole register, so that a cache line is read once.
    lanes = unit.lanes * (
        2 if result.storage == BF16 and first_channel % (2 * unit.lanes) == 0 else 1
    )
    # Such a view has no stride from lane to lane.
    is_counted = any(view.column_digits for view in views)
    if result.c == 1 and (result.w != 1 or shape[2] * shape[3] == 1 or is_counted):
        blocks = [view.block for view in views if view.c and view.chunk != view.block * view.c]
        return Nest(
            shape=shape,
            first_channel=first_channel,
            axis="c",
            lanes=min([lanes, *blocks]),
            mergeable=mergeable,
        )
    return Nest(
        shape=shape, first_channel=first_channel, axis="w", lanes=lanes, mergeable=mergeable
    )


def run_nests(nests: Sequence[Nest], bodies: Sequence[Body]) -> None:
    """Emit one parallel loop in which every task has its share of each of `nests`."""
    tasks = min(sum(nest.tasks for nest in nests), emit.MOST_SHARES)
    with emit.parallel(tasks) as task:
        for nest, body in zip(nests, bodies, strict=True):
            nest.emit_share(task, tasks, body)
