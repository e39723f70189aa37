"""Attention in one kernel agrees with TVM's own code: shapes, masks, scales, movements around it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax
from tvm.relax.op import (
    add,
    concat,
    divide,
    matmul,
    multiply,
    nn,
    permute_dims,
    reshape,
    strided_slice,
    take,
)

from tests.cpu.support import TOLERANCE, error, model, weights
from tvm_passes.attention import ANCHOR
from tvm_passes.cpu import generic
from tvm_passes.decision import Decision
from tvm_passes.ir import main_bindings, op_name, static_shape
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.rewrite_layouts import subgraph_id

CPU = Decision(unit="cpu")


def number(value):
    return relax.const(np.float32(value), "float32")


def index(value):
    return relax.const(np.int64(value), "int64")


def attention(q, k, v, steps=()):
    """The product of `v` with the softmax of the scores, after each of `steps` on them."""
    scores = matmul(q, k)
    for step in steps:
        scores = step(scores)
    return matmul(nn.softmax(scores, axis=-1), v)


def swapped(x):
    """Transposed matrices of a tensor of four dimensions."""
    return permute_dims(x, [0, 1, 3, 2])


def projected(x, heads, depth):
    """Queries, keys and values of all heads from one tensor, as exporters of ViT write them."""
    batch, tokens, _ = static_shape(x.ty)
    cut = reshape(x, (batch, tokens, 3, heads, depth))
    turned = permute_dims(cut, [2, 0, 3, 1, 4])
    return [take(turned, index(place), axis=0) for place in range(3)]


def joined(y, *shape):
    """Results of all heads, one token after the other."""
    return reshape(permute_dims(y, [0, 2, 1, 3]), shape)


def sub_graphs(module):
    """Operators of every sub-graph."""
    return [
        [op_name(binding.value) for binding in main_bindings(function)]
        for function in PartitionSubgraphs()(module).functions.values()
        if subgraph_id(function)
    ]


def has_kernel(module):
    """True if a module has an attention, and each has a kernel."""
    functions = PartitionSubgraphs()(module).functions.values()
    own = [one for one in functions if subgraph_id(one) and one.attrs["layoutsel.anchor"] == ANCHOR]
    return bool(own) and not any(generic(one, CPU) for one in own)


def vit(x, heads=3, depth=32):
    q, k, v = projected(x, heads, depth)
    y = attention(multiply(q, number(depth**-0.5)), swapped(k), v)
    return joined(y, *static_shape(x.ty)[:2], heads * depth)


def test_a_vision_transformers_attention_is_one_sub_graph():
    module = model(vit, (1, 50, 288))
    assert [len(one) for one in sub_graphs(module)] == [12]
    assert has_kernel(module)
    assert error(vit, [(1, 50, 288)], CPU) < TOLERANCE


def bert(q, k, v, mask):
    heads = [reshape(one, (2, 17, 4, 16)) for one in (q, k, v)]
    orders = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    q, k, v = (permute_dims(one, axes) for one, axes in zip(heads, orders, strict=True))
    steps = (lambda s: divide(s, number(4.0)), lambda s: add(s, mask))
    return joined(attention(q, k, v, steps), 2, 17, 64)


def test_a_mask_that_is_computed_is_read_where_it_is():
    shapes = [*[(2, 17, 64)] * 3, (2, 1, 1, 17)]
    module = model(bert, *shapes)
    assert len(sub_graphs(module)) == 1
    assert has_kernel(module)
    assert error(bert, shapes, CPU) < TOLERANCE


def test_a_result_that_is_concatenated_stays_a_result():
    """ConvBERT joins the results of attention and of convolutions: a tuple is no movement's source."""

    def body(q, k, v, other):
        return concat([permute_dims(attention(q, k, v), [0, 2, 1, 3]), other], axis=2)

    shapes = [(2, 2, 17, 16), (2, 2, 16, 17), (2, 2, 17, 16), (2, 17, 2, 16)]
    assert has_kernel(model(body, *shapes))
    assert error(body, shapes, CPU) < TOLERANCE


def test_a_full_mask_that_is_computed():
    shapes = [*[(2, 17, 64)] * 3, (2, 4, 17, 17)]
    assert has_kernel(model(bert, *shapes))
    assert error(bert, shapes, CPU) < TOLERANCE


def test_windows_with_two_constant_masks():
    def body(x):
        q, k, v = projected(x, 3, 32)
        steps = (
            lambda s: multiply(s, number(32**-0.5)),
            lambda s: add(s, weights(1, 3, 49, 49)),
            lambda s: add(s, weights(4, 1, 49, 49, seed=2)),
        )
        return joined(attention(q, swapped(k), v, steps), 4, 49, 96)

    module = model(body, (4, 49, 288))
    assert len(sub_graphs(module)) == 1
    assert has_kernel(module)
    assert error(body, [(4, 49, 288)], CPU) < TOLERANCE


@pytest.mark.parametrize("heads", [2, 20])
def test_each_head_has_its_scale(heads):
    def body(q, k, v):
        steps = (lambda s: multiply(s, weights(heads, 1, 1)), lambda s: multiply(s, number(0.5)))
        return attention(q, k, v, steps)

    shapes = [(2, heads, 24, 16), (2, heads, 16, 24), (2, heads, 24, 16)]
    assert has_kernel(model(body, *shapes))
    assert error(body, shapes, CPU) < TOLERANCE


def test_a_mask_of_minus_infinity_hides_keys():
    mask = np.zeros((1, 1, 20, 20), "float32")
    mask[..., 12:] = -np.inf

    def body(q, k, v):
        return attention(q, k, v, [lambda s: add(s, relax.const(mask, "float32"))])

    shapes = [(1, 2, 20, 8), (1, 2, 8, 20), (1, 2, 20, 8)]
    assert has_kernel(model(body, *shapes))
    assert error(body, shapes, CPU) < TOLERANCE


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 3), min_size=0, max_size=2),
    st.integers(8, 70),
    st.integers(2, 70),
    st.integers(1, 40),
    st.integers(1, 80),
)
def test_any_shape(leading, rows, keys, depth, columns):
    shapes = [(*leading, rows, depth), (*leading, depth, keys), (*leading, keys, columns)]
    assert has_kernel(model(attention, *shapes))
    assert error(attention, shapes, CPU) < TOLERANCE


def test_slices_of_one_projection():
    def body(x):
        parts = [
            strided_slice(x, axes=[2], begin=[64 * place], end=[64 * place + 64])
            for place in range(3)
        ]
        q, k, v = (permute_dims(reshape(one, (1, 33, 4, 16)), [0, 2, 1, 3]) for one in parts)
        return joined(attention(q, swapped(k), v), 1, 33, 64)

    module = model(body, (1, 33, 192))
    assert len(sub_graphs(module)) == 1
    assert has_kernel(module)
    assert error(body, [(1, 33, 192)], CPU) < TOLERANCE


def test_keys_that_are_read_elsewhere_stay_outside():
    def body(x):
        q, k, v = projected(x, 2, 16)
        y = attention(q, swapped(k), v)
        return add(y, k)

    module = model(body, (1, 40, 96))
    found = sub_graphs(module)
    assert not any("softmax" in one and "take" in one for one in found[:1])
    assert has_kernel(module)
    assert error(body, [(1, 40, 96)], CPU) < TOLERANCE


def test_a_few_rows_stay_apart():
    assert not has_kernel(model(attention, (1, 3, 1, 64), (1, 3, 64, 197), (1, 3, 197, 64)))


DECLINED = {
    "softmax of rows": lambda q, k, v: matmul(nn.softmax(matmul(q, k), axis=-2), v),
    "scores read twice": lambda q, k, v: add(matmul(nn.softmax(s := matmul(q, k), axis=-1), v), s),
    "mask scaled": lambda q, k, v: attention(
        q, k, v, (lambda s: add(s, weights(1, 1, 16, 16)), lambda s: multiply(s, number(2.0)))
    ),
    "probabilities on the right": lambda q, k, v: matmul(v, nn.softmax(matmul(q, k), axis=-1)),
}


@pytest.mark.parametrize("body", DECLINED.values(), ids=DECLINED)
def test_other_products_around_a_softmax_stay_apart(body):
    shapes = [(1, 2, 16, 16)] * 3
    partitioned = PartitionSubgraphs()(model(body, *shapes))
    anchors = [
        str(function.attrs["layoutsel.anchor"])
        for function in partitioned.functions.values()
        if subgraph_id(function)
    ]
    assert ANCHOR not in anchors
    assert len(anchors) >= 3


def test_the_pass_can_leave_attention_apart():
    partitioned = PartitionSubgraphs(attention=False)(model(vit, (1, 50, 288)))
    anchors = {
        str(function.attrs["layoutsel.anchor"])
        for function in partitioned.functions.values()
        if subgraph_id(function)
    }
    assert {"matmul", "nn.softmax"} <= anchors
    assert ANCHOR not in anchors
