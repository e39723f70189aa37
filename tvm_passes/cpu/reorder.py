"""Layout transforms: copies between memory orders, by transposes in registers if necessary."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from tvm import tirx
from tvm.tirx.script import builder as T

from tvm_passes.cpu import emit
from tvm_passes.cpu.emit import Buffer, TirExpr, bind, store
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.nest import At, Body, nest_for, run_nests
from tvm_passes.cpu.view import Slice, View, four_dimensional, view
from tvm_passes.layout import physical_dtype, physical_shape


def transpose(vectors: Sequence[TirExpr]) -> list[TirExpr]:
    """Transpose a square of vectors by log2(n) rounds of two-operand shuffles."""
    rows, size = list(vectors), len(vectors)
    distance = size // 2
    while distance:
        low = [lane if not lane & distance else size + lane - distance for lane in range(size)]
        high = [lane + distance if not lane & distance else size + lane for lane in range(size)]
        swapped = list(rows)
        for index in range(size):
            if not index & distance:
                pair = [rows[index], rows[index + distance]]
                swapped[index] = bind(_shuffle(pair, low))
                swapped[index + distance] = bind(_shuffle(pair, high))
        rows = swapped
        distance //= 2
    return rows


def _shuffle(pair: Sequence[TirExpr], indices: Sequence[int]) -> TirExpr:
    return tirx.Shuffle(list(pair), [tirx.const(index, "int32") for index in indices])


_FEW_CHANNELS = 4
"""Maximum number of planes that one store interleaves, with a vector of each."""
_INTERLEAVED = 4096
"""Pixels that one task interleaves."""
_SPAN = 64
"""Maximum number of pixel tiles that one task transposes."""


def _is_planar(where: View) -> bool:
    """Return whether the pixels of a channel are contiguous, but not the channels of a pixel."""
    return where.w == 1 and where.c != 1


def reorder(
    shape: Sequence[int],
    source_layout: str,
    result_layout: str,
    unit: VectorUnit,
    within: Slice | None = None,
) -> tirx.PrimFunc:
    """Make a PrimFunc that copies float32 values of a logical NCHW `shape` between two layouts.

    Parameters
    ----------
    within
        The larger tensor that contains the result.
    """
    source, result = view(shape, source_layout), view(shape, result_layout, within)
    taken = within.shape if within else shape
    types = [
        (physical_shape(shape, source_layout), physical_dtype("float32", source_layout)),
        (physical_shape(taken, result_layout), physical_dtype("float32", result_layout)),
    ]
    blocks = [where.block for where in (source, result) if where.chunk != where.block * where.c]
    lanes = min([unit.lanes, *blocks])
    n, channels, h, w = four_dimensional(shape)
    transposes = (
        _is_planar(source) != _is_planar(result)
        and h * w >= lanes
        and channels >= lanes
        and all(where.h == where.w * w for where in (source, result))
    )

    few = _is_planar(source) and result.c == 1 and result.block == channels <= _FEW_CHANNELS
    if few and source.h == source.w * w and result.h == result.w * w and h * w >= unit.lanes:
        return emit.prim_func(types, partial(_interleaved, shape, (source, result), unit.lanes))

    def body(buffers: list[Buffer]) -> None:
        first = channels - channels % lanes if transposes else 0
        if transposes:
            _transposed(buffers, shape, (source, result), unit, lanes)
        if first < channels:
            rest = nest_for(
                (n, channels - first, h, w), [result, source], unit, first_channel=first
            )
            run_nests([rest], [_copy(buffers, source, result)])

    return emit.prim_func(types, body)


def _interleaved(
    shape: Sequence[int], views: tuple[View, View], lanes: int, buffers: list[Buffer]
) -> None:
    """Emit the copy of a few planes, such as an image's colours, to pixels.

    A vector of each plane is loaded, and one store writes all of them interleaved.
    """
    n, channels, h, w = four_dimensional(shape)
    source, result = views
    groups = -(-h * w // lanes)
    per_task = max(1, min(groups, _INTERLEAVED // lanes))
    tasks = -(-groups // per_task)
    with emit.parallel(n * tasks) as task:
        image, start = bind(task // tasks), bind(task % tasks * per_task)
        with emit.serial(T.min(per_task, groups - start)) as group:
            # The last group overlaps its predecessor.
            pixel = bind(T.min((start + group) * lanes, h * w - lanes))
            planes = [
                source.load(buffers[0], source.offset(image, channel, 0, pixel), lanes, "w")
                for channel in range(channels)
            ]
            halves = [result.stored(plane, lanes) for plane in planes]
            vectors = [half[index] for index in range(len(halves[0])) for half in halves]
            order = [
                vector * lanes + lane for lane in range(lanes) for vector in range(len(vectors))
            ]
            value = _shuffle([bind(vector) for vector in vectors], order)
            store(buffers[1], value, result.offset(image, 0, 0, pixel), len(order))


def _copy(buffers: Sequence[Buffer], source: View, result: View) -> Body:
    def body(at: At, lanes: int, axis: str) -> None:
        value = source.load(buffers[0], source.offset(*at), lanes, axis)
        result.store(buffers[1], value, result.offset(*at), lanes, axis)

    return body


def _transposed(
    buffers: Sequence[Buffer],
    shape: Sequence[int],
    views: tuple[View, View],
    unit: VectorUnit,
    lanes: int,
) -> None:
    """Emit the copy of all whole vectors of channels; the last two pixel tiles may overlap."""
    n, channels, h, w = shape
    source, result = views
    source_axis, result_axis = ("w" if _is_planar(where) else "c" for where in views)
    pixels, vectors = h * w, channels // lanes
    tiles = -(-pixels // lanes)
    span = min(-(-tiles // unit.threads), _SPAN)
    spans = -(-tiles // span)
    with emit.parallel(n * spans * vectors) as task:
        image = bind(task // (spans * vectors))
        first = bind(task // vectors % spans * span)
        channel = bind(task % vectors * lanes)
        with emit.serial(T.min(span, tiles - first)) as tile:
            pixel = bind(T.min((first + tile) * lanes, pixels - lanes))
            rows = []
            for lane in range(lanes):
                base = _tile_base(source, image, channel, pixel, lane)
                rows.append(bind(source.load(buffers[0], base, lanes, source_axis)))
            for lane, column in enumerate(transpose(rows)):
                base = _tile_base(result, image, channel, pixel, lane)
                result.store(buffers[1], column, base, lanes, result_axis)


def _tile_base(where: View, image: TirExpr, channel: TirExpr, pixel: TirExpr, lane: int) -> TirExpr:
    """Return the offset of one vector of a tile."""
    if _is_planar(where):
        return where.offset(image, channel + lane, 0, pixel)
    return where.offset(image, channel, 0, pixel + lane)
