"""Attention on oneDNN: a chain of primitives over views, as the kernel of the CPU computes it."""

from __future__ import annotations

import numpy as np
import pytest
from networks import arrays, functions, network, run_onednn, run_reference, weight
from tvm import relax
from tvm.relax.op import add, matmul, multiply, nn, permute_dims, reshape

from tvm_passes.attention import ANCHOR
from tvm_passes.decision import Decision
from tvm_passes.onednn import available, supports
from tvm_passes.partition import PartitionSubgraphs

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))

TOKENS, HEADS, DEPTH = 24, 4, 16
SHAPE = (2, TOKENS, HEADS * DEPTH)


def heads(x, axes):
    return permute_dims(reshape(x, (2, TOKENS, HEADS, DEPTH)), axes)


def scores(q, k):
    product = matmul(heads(q, [0, 2, 1, 3]), heads(k, [0, 2, 3, 1]))
    return multiply(product, relax.const(np.float32(0.25)))


def joined(s, v):
    y = matmul(nn.softmax(s, axis=-1), heads(v, [0, 2, 1, 3]))
    return reshape(permute_dims(y, [0, 2, 1, 3]), SHAPE)


BODIES = {
    "plain": (lambda q, k, v: joined(scores(q, k), v), [SHAPE] * 3),
    "mask of keys": (
        lambda q, k, v, mask: joined(add(scores(q, k), mask), v),
        [*[SHAPE] * 3, (2, 1, 1, TOKENS)],
    ),
    "constant masks": (
        lambda q, k, v: joined(
            add(add(scores(q, k), weight(1, HEADS, TOKENS, TOKENS)), weight(2, 1, TOKENS, TOKENS)),
            v,
        ),
        [SHAPE] * 3,
    ),
}


@pytest.mark.parametrize(("body", "shapes"), BODIES.values(), ids=BODIES)
def test_a_chain_of_primitives_agrees(body, shapes):
    module = network(body, *shapes)
    decision = Decision(unit="onednn")
    (function,) = functions(PartitionSubgraphs()(module)).values()
    assert str(function.attrs["layoutsel.anchor"]) == ANCHOR
    if decline := supports(function, decision):
        pytest.skip(str(decline))
    values = arrays(*shapes)
    got, want = run_onednn(module, values, decision), run_reference(module, values)
    np.testing.assert_allclose(got[0], want[0], rtol=2e-5, atol=2e-6)
