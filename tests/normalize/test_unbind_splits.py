"""Splits into single places are places taken; other splits stay."""

from __future__ import annotations

import pytest
from normalizing import check, unchanged
from tvm import relax
from tvm.relax.op import add, reshape, split, squeeze

from tvm_passes.normalize import UnbindSplits

SHAPE = (3, 4, 2, 5)


def parts(e, x, sections, axis):
    made = e(split(x, sections, axis=axis))
    return [e(relax.TupleGetItem(made, place)) for place in range(len(made.ty.fields))]


@pytest.mark.parametrize(("axis", "count"), [(0, 3), (1, 4), (2, 2), (-1, 5)])
def test_an_unbinding_takes_places(axis, count):
    def emit(e, x):
        first, *rest = (e(squeeze(one, [axis])) for one in parts(e, x, count, axis))
        for one in rest:
            first = e(add(first, one))
        return first

    check(UnbindSplits(), emit, " ".join(["take"] * count + ["add"] * (count - 1)), SHAPE)


def test_a_reshape_that_drops_the_axis():
    def emit(e, x):
        q, k, v = (e(reshape(one, (4, 2, 5))) for one in parts(e, x, 3, 0))
        return add(e(add(q, k)), v)

    check(UnbindSplits(), emit, "take take take add add", SHAPE)


def test_larger_parts_stay():
    unchanged(UnbindSplits(), lambda e, x: add(*parts(e, x, 2, 1)), SHAPE)


def test_single_parts_whose_axis_stays():
    def emit(e, x):
        q, k, v = parts(e, x, 3, 0)
        return add(e(add(q, k)), v)

    unchanged(UnbindSplits(), emit, SHAPE)
