"""Strides of movements agree with numpy's."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tvm import relax
from tvm.relax.op import permute_dims, reshape, strided_slice, take

from tvm_passes.ir import static_shape
from tvm_passes.strides import dense, moved, operand_of

SHAPE = (4, 3, 2, 6)


def elements(where, array):
    """The elements of a flat array at the positions of `where`."""
    places = np.full(where.shape, where.start)
    for axis, (size, stride) in enumerate(zip(where.shape, where.strides, strict=True)):
        steps = np.arange(size) * stride
        places = places + steps.reshape(-1, *[1] * (len(where.shape) - axis - 1))
    return array.reshape(-1)[places]


def call_of(emit, shape):
    x = relax.Var("x", relax.TensorType(shape, "float32"))
    return relax.BlockBuilder().normalize(emit(x))


def drawn_reshape(draw, shape):
    factors = [draw(st.sampled_from([1, 2, 3, 4, 6])) for _ in range(draw(st.integers(0, 2)))]
    size, target = math.prod(shape), []
    for factor in factors:
        if size % factor == 0:
            target.append(factor)
            size //= factor
    target = tuple(draw(st.permutations([*target, size])))
    return lambda x: reshape(x, target), lambda a: a.reshape(target)


def drawn_permutation(draw, shape):
    axes = draw(st.permutations(range(len(shape))))
    return lambda x: permute_dims(x, list(axes)), lambda a: a.transpose(axes)


def drawn_take(draw, shape):
    axis = draw(st.integers(0, len(shape) - 1))
    place = draw(st.integers(-shape[axis], shape[axis] - 1))
    index = relax.const(np.int64(place), "int64")
    return lambda x: take(x, index, axis=axis), lambda a: np.take(a, place, axis)


def drawn_slice(draw, shape):
    axis = draw(st.integers(0, len(shape) - 1))
    begin = draw(st.integers(0, shape[axis] - 1))
    end = draw(st.integers(begin + 1, shape[axis]))
    step = draw(st.integers(1, 2))
    cut = (*[slice(None)] * axis, slice(begin, end, step))
    return (
        lambda x: strided_slice(x, [axis], [begin], [end], [step]),
        lambda a: a[cut],
    )


@given(st.data())
def test_positions_of_movements_agree_with_numpy(data):
    array = np.arange(math.prod(SHAPE))
    value, where = array.reshape(SHAPE), dense(SHAPE)
    for _ in range(data.draw(st.integers(1, 4))):
        if not value.shape:
            break
        kinds = (drawn_reshape, drawn_permutation, drawn_take, drawn_slice)
        emit, apply = data.draw(st.sampled_from(kinds))(data.draw, value.shape)
        call = call_of(emit, value.shape)
        value = apply(value)
        assert static_shape(call.ty) == value.shape
        where = moved(call, where, value.shape)
        if where is None:
            break
        np.testing.assert_array_equal(elements(where, array), value)


@given(st.data())
def test_positions_of_operands_are_the_inverse(data):
    shape = SHAPE
    calls = []
    for _ in range(data.draw(st.integers(1, 3))):
        kinds = (drawn_reshape, drawn_permutation)
        emit, _ = data.draw(st.sampled_from(kinds))(data.draw, shape)
        calls.append((call_of(emit, shape), shape))
        shape = static_shape(calls[-1][0].ty)
    where = dense(shape)
    for call, source in reversed(calls):
        where = operand_of(call, where, source)
        if where is None:
            return
    value = np.arange(math.prod(SHAPE)).reshape(SHAPE)
    result = np.empty(math.prod(SHAPE), int)
    result[elements(where, np.arange(math.prod(SHAPE)))] = value
    expected = value
    for call, _ in calls:
        is_reshape = call.op.name == "relax.reshape"
        target = static_shape(call.ty)
        expected = (
            expected.reshape(target)
            if is_reshape
            else expected.transpose([int(axis) for axis in call.attrs.axes])
        )
    np.testing.assert_array_equal(result, expected.reshape(-1))
