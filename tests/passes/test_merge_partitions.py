"""Partitions: convex by brute force on random graphs, and equal results under any assignment."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from modules import conv, module_of, run
from tiers import examples
from tvm.relax.op import add, nn

from tvm_passes.decision import Decision
from tvm_passes.layouts import LAYOUTS
from tvm_passes.merge_partitions import MergePartitions, _Quotient
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.rewrite_layouts import RewriteLayouts, subgraph_id


@st.composite
def graphs(draw):
    """Reads of each node of a random graph, and a colour of each."""
    size = draw(st.integers(1, 9))
    reads = [
        draw(st.sets(st.integers(0, node - 1), max_size=3)) if node else set()
        for node in range(size)
    ]
    return reads, draw(st.lists(st.booleans(), min_size=size, max_size=size))


@given(graphs())
def test_contraction_never_closes_a_cycle(graph):
    reads, coloured = graph
    quotient = _Quotient(reads)
    for node, read in enumerate(reads):
        for producer in read:
            if coloured[node] and coloured[producer]:
                quotient.contract(producer, node)
    order = quotient.order()
    assert sorted(node for group in order for node in group) == list(range(len(reads)))
    place = {node: index for index, group in enumerate(order) for node in group}
    assert all(
        place[producer] <= place[node] for node, read in enumerate(reads) for producer in read
    )


def residual_network():
    """Three convolutions, two of them parallel, joined by additions."""

    def emit(b, x):
        left = b.emit(nn.relu(b.emit(conv(x, seed=1))))
        right = b.emit(conv(left, seed=2))
        return add(b.emit(conv(right, seed=3)), b.emit(nn.max_pool2d(left, (3, 3), padding=(1, 1))))

    return module_of(emit)


@settings(max_examples=examples(12), deadline=None)
@given(st.data())
def test_any_decisions_keep_the_results(data):
    module = PartitionSubgraphs()(residual_network())
    ids = [subgraph_id(f) for f in module.functions.values() if subgraph_id(f)]
    units = st.sampled_from(["onednn", "cpu"])
    decisions = {
        subgraph: Decision(unit=data.draw(units), layout=data.draw(st.sampled_from(tuple(LAYOUTS))))
        for subgraph in ids
    }
    rewritten = RewriteLayouts(decisions)(module)
    x = np.random.default_rng(1).standard_normal((1, 16, 8, 8)).astype("float32")
    expected = run(module, x)[0]
    np.testing.assert_allclose(run(rewritten, x)[0], expected, rtol=1e-5, atol=1e-5)
    merged = MergePartitions()(rewritten)
    for function in merged.functions.values():
        assert subgraph_id(function) is None or function.attrs["layoutsel.unit"] == "cpu"
