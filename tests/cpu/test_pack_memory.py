"""Packing takes the memory of its result, and of a piece: weights of one layer may be hundreds of megabytes."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from tvm_passes import arrays
from tvm_passes.arrays import PIECE_BYTES
from tvm_passes.cpu.matvec import FORMATS, MatrixVector
from tvm_passes.onednn.halves import tripled_values

SHARE = 3
"""At most this part of the weights' bytes beside source and result."""


def further_bytes(work) -> int:
    """Most bytes that numpy takes meanwhile: pages of results are not its own."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("storage", FORMATS)
def test_a_matrix(storage):
    kernel = MatrixVector(
        depth=1500, columns=1800, source=SimpleNamespace(storage=storage), result=None,
        unit=SimpleNamespace(lanes=16), epilogue=None,
    )  # fmt: skip
    matrix = np.random.default_rng(0).standard_normal((1500, 1800), np.float32)
    kernel.pack(matrix)
    assert further_bytes(lambda: kernel.pack(matrix)) < matrix.nbytes / SHARE


def test_a_tripled_matrix(monkeypatch):
    monkeypatch.setattr(arrays, "PIECE_BYTES", PIECE_BYTES // 64)
    matrix = np.random.default_rng(0).standard_normal((1500, 1800), np.float32)
    weight = SimpleNamespace(shape=matrix.shape, dense_strides=(1800, 1))
    for axis in (0, 1):
        assert further_bytes(lambda axis=axis: tripled_values(matrix, weight, axis)) < (
            matrix.nbytes / SHARE
        )
        high, low, again = np.split(tripled_values(matrix, weight, axis), 3, axis=axis)
        np.testing.assert_array_equal(high, matrix.astype(ml_dtypes.bfloat16))
        np.testing.assert_array_equal(high, again)
        np.testing.assert_allclose(
            high.astype("float32") + low.astype("float32"), matrix, rtol=2e-5, atol=1e-7
        )
