"""Threads share the pixels of a row: every pixel once, equal shares, and results as before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tvm import relax

from tests.cpu.support import TOLERANCE, error, weights
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.tiling import ParallelWork, best_tiling, row_tilings, widest_tile
from tvm_passes.decision import Decision
from tvm_passes.targets import for_threads

nn = relax.op.nn

UNITS = st.builds(
    VectorUnit,
    lanes=st.sampled_from([4, 8, 16]),
    registers=st.sampled_from([16, 32]),
    threads=st.integers(1, 8),
)


@given(
    row=st.integers(1, 600),
    vectors=st.integers(1, 40),
    steps=st.integers(1, 2000),
    unit=UNITS,
    shares=st.integers(1, 8),
)
def test_shares_of_a_row_have_as_many_tiles(row, vectors, steps, unit, shares):
    tilings = row_tilings(row, vectors, steps, unit, shares)
    assert bool(tilings) == (row >= shares)
    for tiling in tilings:
        assert sum(tiling.widths) == row
        assert len(tiling.widths) % tiling.shares == 0
        assert min(tiling.widths) >= 1
        assert max(tiling.widths) <= widest_tile(tiling.vectors, unit)


def _tiling(rows, row, channels, steps, threads, shares):
    unit = VectorUnit(lanes=16, registers=32, threads=threads)
    vectors = -(-channels // unit.lanes)
    work = ParallelWork(
        rows=rows,
        channel_vectors=vectors,
        groups=1,
        row_bytes=4 * row * steps,
        weight_bytes=4 * channels * steps,
    )
    candidates = [one for n in shares for one in row_tilings(row, vectors, steps, unit, n)]
    return best_tiling(candidates, work, unit)


def test_threads_keep_their_tokens_where_the_activations_are_large():
    assert _tiling(1, 197, 192, 768, threads=2, shares=(1, 2)).shares == 2


def test_threads_share_the_weights_where_these_are_large():
    """Each thread would read all of 16 MiB for a handful of pixels."""
    assert _tiling(1, 7, 2048, 2048, threads=2, shares=(1, 2)).shares == 1


def test_tasks_are_counted():
    tiling = _tiling(1, 197, 192, 768, threads=2, shares=(2,))
    assert tiling.tasks == tiling.shares * -(-12 // tiling.vectors)


@pytest.mark.parametrize("threads", [2, 3, 5])
@pytest.mark.parametrize("tokens", [37, 197])
def test_products_of_shared_rows(tokens, threads):
    def body(x, residual):
        result = relax.op.add(relax.op.matmul(x, weights(64, 72)), weights(72, seed=2))
        return relax.op.add(nn.gelu(result), residual)

    with for_threads(threads):
        shapes = [(1, tokens, 64), (1, tokens, 72)]
        assert error(body, shapes, Decision(unit="cpu")) < TOLERANCE


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NCHW16c"])
@pytest.mark.parametrize("width", [31, 64])
def test_convolutions_of_shared_rows(layout, width):
    """Tiles at both ends lack pixels of a padded row, which other shares must not omit."""

    def body(x):
        return nn.conv2d(x, weights(64, 64, 1, 5), padding=(0, 2, 0, 2))

    with for_threads(3):
        assert error(body, [(1, 64, 2, width)], Decision(unit="cpu", layout=layout)) < TOLERANCE
