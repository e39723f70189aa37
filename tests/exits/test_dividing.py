"""Division of networks into trunk and branches, against the definition on every sub-graph."""

from __future__ import annotations

import functools

import pytest
from exit_networks import NETWORKS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import layoutsel
from layoutsel.exits.dividing import divide
from layoutsel.exits.network import read
from layoutsel.exits.scores import RESULTS
from layoutsel.planning.plan import Plan
from layoutsel.planning.stages import make_stages
from tvm_passes.errors import IllegalDecision


@functools.cache
def planned(name: str) -> tuple[Plan, int]:
    network = read(NETWORKS[name]())
    return layoutsel.plan(network.scored(), cost="roofline"), len(network.names)


def needed(ids, reads):
    """Everything that `ids` need, themselves included, by repeated union."""
    found = set(ids) & set(reads)
    while True:
        more = {t.rpartition(".")[0] for id_ in found for t in reads[id_]} & set(reads)
        if more <= found:
            return found
        found |= more


def check(division, reads, results, exits):
    """Check a division against its definition."""
    every = [*division.trunk, *division.branches]
    assert sorted(id_ for part in every for id_ in part) == sorted(reads)
    order = {id_: position for position, id_ in enumerate(reads)}
    assert all(list(part) == sorted(part, key=order.__getitem__) for part in every)
    makers = [
        [t.rpartition(".")[0] for t in results[RESULTS * i : RESULTS * i + RESULTS]]
        for i in range(exits)
    ]
    trunk = needed(makers[-1], reads)
    assert {id_ for part in division.trunk for id_ in part} == trunk
    for i, branch in enumerate(division.branches):
        # Its exit can answer after the segments so far, and the branches that it needs.
        ready = {id_ for part in division.trunk[: i + 1] for id_ in part} | set(branch)
        waiting = [i]
        while waiting:
            for j in division.needs[waiting.pop()]:
                assert j < i
                ready |= set(division.branches[j])
                waiting.append(j)
        assert needed(makers[i], reads) <= ready
        # Nothing in it is the trunk's, useless, or could run in an earlier branch.
        assert set(branch) <= needed(makers[i], reads) - trunk
        for j in range(i):
            assert not set(branch) & needed(makers[j], reads)
        # A segment is no longer than its branch demands.
        assert set(division.trunk[i]) <= needed(makers[i], reads)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    plan, exits = planned(name)
    division = divide(plan.reads, plan.results, exits)
    check(division, plan.reads, plan.results, exits)
    stages = plan.in_stages(division.stages()).stages
    assert {name for stage in stages for name in stage.outputs if name.startswith("output.")} == {
        f"output.{i}" for i in range(RESULTS * exits)
    }


def anchors(plan, subgraphs):
    operators = {subgraph.id: subgraph.operators for subgraph in plan.subgraphs}
    return [name for id_ in subgraphs for name in operators[id_]]


def test_chain_is_cut_after_each_layer():
    plan, exits = planned("chain")
    division = divide(plan.reads, plan.results, exits)
    assert division.needs == ((), ())
    for segment in division.trunk:
        assert anchors(plan, segment).count("nn.conv2d") == 1
    for branch in division.branches:
        assert "nn.conv2d" not in anchors(plan, branch)
        assert "argmax" in anchors(plan, branch)
    assert "argmax" in anchors(plan, division.trunk[-1])
    assert list(division.stages()) == ["trunk0", "branch0", "trunk1", "branch1", "trunk2"]


def test_exit_with_two_taps_waits_for_both():
    plan, exits = planned("residual")
    division = divide(plan.reads, plan.results, exits)
    assert anchors(plan, division.trunk[0]).count("nn.conv2d") == 2
    assert anchors(plan, division.trunk[1]).count("nn.conv2d") == 1


def test_exit_that_reads_another_exit_lists_it():
    plan, exits = planned("cascade")
    assert divide(plan.reads, plan.results, exits).needs == ((), (0,))


def test_logits_that_the_final_exit_reads_are_trunk():
    plan, exits = planned("stacked")
    division = divide(plan.reads, plan.results, exits)
    assert "matmul" in anchors(plan, division.trunk[0])
    assert "matmul" not in anchors(plan, division.branches[0])
    assert "argmax" in anchors(plan, division.branches[0])


def test_exit_on_the_input_waits_for_nothing():
    plan, exits = planned("on_input")
    division = divide(plan.reads, plan.results, exits)
    assert division.trunk[0] == ()
    assert list(division.stages()) == ["branch0", "trunk1"]


def test_second_exit_on_a_tap_waits_for_no_more_of_the_trunk():
    plan, exits = planned("shared_tap")
    division = divide(plan.reads, plan.results, exits)
    assert division.trunk[0]
    assert division.trunk[1] == ()
    assert division.branches[1]


def test_too_few_results():
    with pytest.raises(IllegalDecision, match="returns 3 tensors: expected 3 for each of 2 exits"):
        divide({"a": ("input.0",)}, ("a.0", "a.0", "a.0"), 2)


@st.composite
def graphs(draw):
    """Random sub-graphs that each read earlier ones, and results of two to four exits."""
    count = draw(st.integers(1, 12))
    ids = [f"s{i}" for i in range(count)]
    reads = {}
    for i, id_ in enumerate(ids):
        sources = st.sampled_from([f"{name}.0" for name in [*ids[:i], "input"]])
        reads[id_] = tuple(draw(st.lists(sources, min_size=1, max_size=3)))
    exits = draw(st.integers(2, 4))
    size = RESULTS * exits
    results = draw(st.lists(st.sampled_from([f"{i}.0" for i in ids]), min_size=size, max_size=size))
    # The importer drops sub-graphs that no result needs.
    kept = needed([t.rpartition(".")[0] for t in results], reads)
    return {id_: reads[id_] for id_ in ids if id_ in kept}, tuple(results), exits


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs())
def test_random_graphs(case):
    reads, results, exits = case
    division = divide(reads, results, exits)
    check(division, reads, results, exits)
    make_stages(division.stages(), reads, results)
