"""Sweeps: the same for equal seeds, and every sub-graph of them can be measured."""

from __future__ import annotations

from math import isfinite, prod

import pytest
import tvm_ffi

from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.zoo.sweep import KINDS, draw, sweep_module, usual


def test_equal_seeds_give_equal_sweeps():
    first, again, other = sweep_module(12, 3), sweep_module(12, 3), sweep_module(12, 4)
    assert tvm_ffi.structural_equal(first, again)
    assert not tvm_ffi.structural_equal(first, other)


def test_every_subgraph_has_candidates_and_a_usual_size():
    session = Session.open(sweep_module(60, 1))
    offers = Offers.of(session)
    assert len(session.graph.subgraphs) >= 60
    for subgraph in session.graph.subgraphs:
        assert offers.candidates[subgraph.id].decisions
        assert subgraph.flops <= 3e9
        assert subgraph.nbytes <= 200 << 20
    anchors = {subgraph.anchor for subgraph in session.graph.subgraphs}
    assert {"nn.conv2d", "matmul", "elementwise", "concat"} <= anchors


def test_units_tell_of_their_code():
    session = Session.open(sweep_module(10, 2))
    offers = Offers.of(session)
    for work in offers.workloads.values():
        assert set(work.hints)
        assert all(
            any(name.startswith(("kernel_", "primitives")) for name in hints)
            for hints in work.hints.values()
        )


@pytest.mark.parametrize("kind", [kind for _, kind in KINDS], ids=lambda kind: kind.__name__)
def test_every_kind_keeps_within_the_limits(kind):
    drawing = draw.Draw(7)
    for _ in range(8):
        one = usual(drawing, kind)
        assert draw.FLOPS[0] <= one.flops <= draw.FLOPS[1]
        assert one.weight_bytes <= draw.MOST_BYTES
        assert all(0 < 4 * prod(shape) <= draw.MOST_BYTES for shape in one.inputs)


def test_every_kind_can_be_priced():
    session = Session.open(sweep_module(100, 11, tuple((1.0, kind) for _, kind in KINDS)))
    offers = Offers.of(session)
    for subgraph in session.graph.subgraphs:
        work = offers.workloads[subgraph.id]
        assert offers.candidates[subgraph.id].decisions
        for decision in offers.candidates[subgraph.id].decisions:
            price = offers.costs.learned.subgraph(work, decision)
            assert isfinite(price.us)
            assert price.us > 0
            assert isfinite(price.spread_us)
            assert price.spread_us >= 0
