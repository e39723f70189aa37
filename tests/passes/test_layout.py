"""Layout algebra by property: inverses, composition, and the index map against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_passes.layout import (
    PLAIN,
    block_size,
    convert,
    index_map,
    logical_shape,
    physical_shape,
    tensor_layout,
)
from tvm_passes.layouts import LAYOUTS

layouts = st.sampled_from(tuple(LAYOUTS))
shapes = st.tuples(
    st.integers(1, 2), st.integers(1, 3).map(lambda k: 32 * k), st.integers(1, 4), st.integers(1, 4)
)


@given(shapes, layouts, layouts)
def test_convert_there_and_back_is_identity(shape, source, destination):
    array = np.arange(np.prod(shape)).reshape(physical_shape(shape, source))
    there = convert(array, source, destination)
    assert there.shape == physical_shape(shape, destination)
    np.testing.assert_array_equal(convert(there, destination, source), array)


@given(shapes, layouts, layouts, layouts)
def test_conversions_compose(shape, first, second, third):
    array = np.arange(np.prod(shape)).reshape(physical_shape(shape, first))
    detour = convert(convert(array, first, second), second, third)
    np.testing.assert_array_equal(detour, convert(array, first, third))


@given(shapes, layouts)
def test_logical_shape_inverts_physical_shape(shape, layout):
    assert logical_shape(physical_shape(shape, layout), layout) == shape


@pytest.mark.parametrize("source", LAYOUTS)
@pytest.mark.parametrize("destination", LAYOUTS)
def test_index_map_moves_elements_as_convert_does(source, destination):
    shape = (1, 32, 3, 2)
    array = np.arange(np.prod(shape)).reshape(physical_shape(shape, source))
    expected = convert(array, source, destination)
    mapping = index_map(source, destination)
    for index in np.ndindex(array.shape):
        moved = tuple(int(i) for i in mapping.map_indices(index))
        assert expected[moved] == array[index]


def test_tensors_that_cannot_be_packed_stay_plain():
    assert tensor_layout((1, 3, 224, 224), "NCHW16c") == PLAIN
    assert tensor_layout((1, 32), "NHWC") == PLAIN
    assert tensor_layout((1, 32, 4, 4), "NCHW16c") == "NCHW16c"
    assert [block_size(layout) for layout in LAYOUTS] == [None, None, 4, 8, 16, 32]
