"""Sweeps: the same for equal seeds, and every sub-graph of them can be measured."""

from __future__ import annotations

import tvm_ffi

from layoutsel.model.sweep import sweep_module
from layoutsel.session import Session


def test_equal_seeds_give_equal_sweeps():
    first, again, other = sweep_module(12, 3), sweep_module(12, 3), sweep_module(12, 4)
    assert tvm_ffi.structural_equal(first, again)
    assert not tvm_ffi.structural_equal(first, other)


def test_every_subgraph_has_candidates_and_a_usual_size():
    session = Session.open(sweep_module(60, 1))
    assert len(session.graph.subgraphs) >= 60
    for subgraph in session.graph.subgraphs:
        assert session.candidates[subgraph.id].decisions
        assert subgraph.flops <= 3e9
        assert subgraph.nbytes <= 200 << 20
    anchors = {subgraph.anchor for subgraph in session.graph.subgraphs}
    assert {"nn.conv2d", "matmul", "elementwise", "concat"} <= anchors


def test_units_tell_of_their_code():
    session = Session.open(sweep_module(10, 2))
    for work in session.workloads.values():
        assert set(work.hints)
        assert all(
            any(name.startswith(("kernel_", "primitives")) for name in hints)
            for hints in work.hints.values()
        )
