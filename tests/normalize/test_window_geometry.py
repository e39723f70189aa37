"""Geometry of windows along an axis: the smaller window reads the same elements and has the same outputs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tvm_passes.normalize.windows import SPARSE, WindowAxis, pooled_extent


def read(axis: WindowAxis) -> list[list[int]]:
    """Elements inside the input that each window reads, one by one."""
    return [
        [
            position
            for tap in range(axis.kernel)
            if 0 <= (position := o * axis.stride - axis.before + tap * axis.dilation) < axis.size
        ]
        for o in range(axis.outputs)
    ]


@st.composite
def axes(draw, most=24):
    number = st.integers(1, most)
    size, kernel, stride, dilation = (
        draw(number),
        draw(number),
        draw(number),
        draw(st.integers(1, 6)),
    )
    before, after = draw(st.integers(0, most)), draw(st.integers(0, most))
    room = size + before + after - (kernel - 1) * dilation - 1
    assume(room >= 0)
    return WindowAxis(
        size=size,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        before=before,
        after=after,
        outputs=room // stride + 1,
    )


def extent(axis: WindowAxis) -> int:
    """Number of windows by the shape rule of Relax, rounded down."""
    room = axis.size + axis.before + axis.after - (axis.kernel - 1) * axis.dilation - 1
    return room // axis.stride + 1


@settings(deadline=None, max_examples=200)
@given(axes())
def test_the_smaller_window_reads_the_same(axis):
    clipped = axis.clipped
    assert read(clipped) == read(axis)
    assert clipped.outputs == axis.outputs == extent(clipped)
    assert clipped.kernel <= axis.kernel
    assert min(clipped.before, clipped.after) >= 0
    assert clipped.clipped == clipped


@settings(deadline=None, max_examples=150)
@given(axes())
def test_counts_are_those_of_the_elements(axis):
    inside = [len(positions) for positions in read(axis)]
    assert axis.counts(with_padding=False).tolist() == inside
    starts = [o * axis.stride - axis.before for o in range(axis.outputs)]
    padded = [
        sum(start + tap * axis.dilation < axis.size + axis.after for tap in range(axis.kernel))
        for start in starts
    ]
    assert axis.counts(with_padding=True).tolist() == padded


@settings(deadline=None, max_examples=150)
@given(axes())
def test_positions_list_the_elements(axis):
    listed = [[int(p) for p in row if p != axis.size] for row in axis.positions]
    assert listed == read(axis)


@settings(deadline=None, max_examples=150)
@given(axes())
def test_live_outputs_are_those_that_read_anything(axis):
    live = axis.live
    assert all(not row for row in read(axis)[: live.start] + read(axis)[live.stop :])
    assert live.start * axis.stride <= axis.before or live == slice(0, 0)


@settings(deadline=None, max_examples=150)
@given(axes(most=200))
def test_what_is_not_sparse_is_padded_little(axis):
    clipped = axis.clipped
    assert clipped.is_sparse or clipped.before + clipped.size + clipped.after <= SPARSE * axis.size


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "ceil_mode", "outputs"),
    [(7, 1280, 1280, True, 1), (7, 10, 10, False, 1), (7, 17, 10, False, 0), (7, 3, 2, True, 3)],
)
def test_extents_are_counted_as_onnx_runtime_does(size, kernel, stride, ceil_mode, outputs):
    axis = WindowAxis(
        size=size, kernel=kernel, stride=stride, dilation=1, before=0, after=0, outputs=0
    )
    assert pooled_extent(axis, ceil_mode=ceil_mode) == outputs


def test_enormous_windows_need_no_memory():
    axis = WindowAxis(
        size=7, kernel=10**12, stride=10**12, dilation=1, before=0, after=0, outputs=1
    )
    assert (axis.clipped.kernel, axis.clipped.stride) == (7, 1)
    np.testing.assert_array_equal(axis.positions, [range(7)])
