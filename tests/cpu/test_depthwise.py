"""Depthwise convolutions of plain images: lanes are pixels, whichever way windows overlap the edges."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax

from tests.cpu.support import (
    TARGET,
    TOLERANCE,
    decide,
    error,
    model,
    random_array,
    run,
    weights,
)
from tests.reference import relative_error, run_relax
from tvm_passes.cpu.kernels import plan_subgraph
from tvm_passes.cpu.legality import _REFERENCE_UNIT
from tvm_passes.cpu.subgraph import read_subgraph
from tvm_passes.decision import Decision
from tvm_passes.rewrite_layouts import subgraph_id

PLAIN = Decision(unit="cpu")
CASES = {
    "both edges": ((2, 6, 5, 40), (6, 1, 3, 3), dict(padding=1)),
    "one row of whole vectors": ((1, 4, 3, 66), (4, 1, 3, 3), {}),
    "many vectors": ((1, 3, 4, 200), (3, 1, 3, 5), dict(padding=(1, 2))),
    "overlapping vectors": ((1, 8, 25, 25), (8, 1, 5, 5), {}),
    "stride 2": ((1, 6, 15, 57), (6, 1, 3, 3), dict(padding=1, strides=2)),
    "stride 3": ((1, 6, 9, 70), (6, 1, 3, 4), dict(padding=(0, 2), strides=(2, 3))),
    "stride 5": ((1, 6, 9, 90), (6, 1, 3, 3), dict(strides=5)),
    "dilated": ((1, 6, 12, 33), (6, 1, 3, 3), dict(padding=(2, 6), dilation=(2, 6))),
    "wide padding": ((1, 4, 4, 9), (4, 1, 3, 3), dict(padding=(2, 20), dilation=(1, 18))),
    "row shorter than a vector": ((1, 4, 4, 5), (4, 1, 3, 3), dict(padding=(1, 5))),
    "uneven padding": ((1, 4, 6, 20), (4, 1, 4, 4), dict(padding=(1, 1, 2, 2))),
    "two results of each": ((1, 6, 7, 18), (12, 1, 3, 3), dict(padding=1)),
    "whole image": ((2, 6, 7, 9), (6, 1, 7, 9), {}),
    "small whole image": ((1, 20, 2, 3), (20, 1, 2, 3), {}),
    "whole image of whole vectors": ((1, 6, 16, 16), (6, 1, 16, 16), {}),
}


def body_of(name, *, computed):
    source, weight, attributes = CASES[name]

    def body(x, *rest):
        filters = rest[0] if computed else weights(*weight)
        y = relax.op.nn.conv2d(x, filters, groups=source[1], **attributes)
        return relax.op.nn.relu(relax.op.add(y, weights(weight[0], 1, 1, seed=3)))

    return body, [source, weight] if computed else [source]


def hints_of(body, shapes):
    (function,) = (
        one for one in decide(model(body, *shapes), PLAIN).functions.values() if subgraph_id(one)
    )
    return plan_subgraph(read_subgraph(function), _REFERENCE_UNIT).hints


@pytest.mark.parametrize("computed", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_values(name, computed):
    body, shapes = body_of(name, computed=computed)
    assert "kernel_rows" in hints_of(body, shapes)
    assert error(body, shapes, PLAIN) <= TOLERANCE


@pytest.mark.parametrize("name", ["both edges", "stride 2", "dilated", "whole image"])
@pytest.mark.parametrize("cpu", ["x86-64-v3", "x86-64"])
def test_narrower_vectors(name, cpu):
    target = tvm.target.Target({**TARGET.export(), "mcpu": cpu})
    body, shapes = body_of(name, computed=False)
    assert error(body, shapes, PLAIN, target) <= TOLERANCE


def test_inputs_next_to_the_edge_count_nowhere_else():
    """What is loaded beyond the pixels that are wanted is not multiplied by zero: it may be no number."""
    source = random_array(1, 2, 3, 40)
    source[0, 0, :, -3:] = np.nan

    def body(x):
        return relax.op.nn.conv2d(x, weights(2, 1, 3, 3), groups=2, padding=1)

    got = run(model(body, source.shape), [source], PLAIN)
    (want,) = run_relax(model(body, source.shape), [source])
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    assert relative_error(np.nan_to_num(got), np.nan_to_num(want)) <= TOLERANCE


def test_rows_shorter_than_half_a_vector_have_channels_for_lanes():
    def body(x):
        return relax.op.nn.conv2d(x, weights(32, 1, 3, 3), groups=32, padding=1)

    assert "kernel_window" in hints_of(body, [(1, 32, 7, 7)])
