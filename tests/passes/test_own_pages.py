"""Constants and arrays share memory where they can; large results lie on pages that are handed over."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from tvm_passes.arrays import (
    PIECE_BYTES,
    array_of,
    constant_in_place,
    constant_of,
    own_pages,
    pages_of,
    pieces,
)
from tvm_passes.weight_pool import WeightPool

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def address(array: np.ndarray) -> int:
    return array.ctypes.data


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "int64", "bool", BFLOAT16])
@pytest.mark.parametrize("shape", [(), (0, 3), (5, 7), (700, 300)])
def test_a_constant_holds_the_values(dtype, shape):
    array = (np.arange(int(np.prod(shape))).reshape(shape) % 3).astype(dtype)
    for constant in (constant_of(array), constant_of(array.T), constant_in_place(array)):
        assert array_of(constant).dtype == array.dtype
    np.testing.assert_array_equal(array_of(constant_of(array)), array)
    np.testing.assert_array_equal(array_of(constant_of(array.T)), array.T)
    np.testing.assert_array_equal(array_of(constant_in_place(array)), array)


def test_a_constant_is_a_copy_of_an_array_of_others():
    array = np.ones((400, 400), np.float32)
    constant = constant_of(array)
    array[:] = 2
    assert (array_of(constant) == 1).all()


@pytest.mark.parametrize("dtype", ["float32", BFLOAT16])
def test_own_pages_are_taken_over(dtype):
    packed = own_pages((400, 400), dtype)
    assert not packed.any()
    assert address(array_of(constant_of(packed.reshape(-1)))) == address(packed)
    assert address(array_of(WeightPool(lambda: None).constant(packed))) == address(packed)


def test_a_part_of_own_pages_is_copied():
    packed = own_pages((400, 400), "float32")
    assert pages_of(packed[:200]) is None
    assert address(array_of(constant_of(packed[:300]))) != address(packed)


def test_a_small_constant_does_not_keep_a_large_file_in_memory(tmp_path):
    file = tmp_path / "weights"
    np.zeros(100_000, np.float32).tofile(file)
    mapped = np.memmap(file, np.float32, "c")
    assert address(array_of(constant_in_place(mapped))) == address(mapped)
    assert address(array_of(constant_in_place(mapped[:16]))) != address(mapped)


@pytest.mark.parametrize("count", [1, 3, 1000])
@pytest.mark.parametrize("nbytes", [1, PIECE_BYTES, 100 * PIECE_BYTES])
def test_pieces_cover_an_axis_once(count, nbytes):
    found = [index for some in pieces(count, nbytes) for index in range(some.start, some.stop)]
    assert found == list(range(count))
    assert len(list(pieces(count, nbytes))) <= max(1, 2 * nbytes // PIECE_BYTES)
