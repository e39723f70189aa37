"""Division of networks into trunk and branches, against the definition on every sub-graph."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
from exit_networks import NETWORKS, Builder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import layoutsel
from layoutsel.exits.dividing import divide
from layoutsel.exits.inspecting import Inspection, inspect
from layoutsel.exits.network import read
from layoutsel.exits.scores import RESULTS
from layoutsel.planning.stages import make_stages, uses_of
from tvm_passes.errors import IllegalDecision


@functools.cache
def inspected(name: str) -> Inspection:
    return inspect(read(NETWORKS[name]()))


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
    found = inspected(name)
    reads, results = uses_of(found.graph.ids, found.graph.tensors)
    exits = len(found.network.names)
    check(found.division, reads, results, exits)
    stages = make_stages(found.division.stages(), reads, results)
    outputs = [name for stage in stages for name in stage.outputs if name.startswith("output.")]
    assert sorted(outputs) == sorted(f"output.{i}" for i in range(RESULTS * exits))


def test_plan_and_graph_are_divided_alike():
    found = inspected("multi_scale")
    plan = layoutsel.plan(found.network.scored(), cost="roofline")
    division = divide(plan.reads, plan.results, len(found.network.names))
    assert division == found.division
    assert plan.in_stages(division.stages()).held_by_stages == division.stages()


def test_softmax_outputs_are_results():
    """Compiling adds their logits as further results."""
    net = Builder()
    x = net.conv(net.input("x"), 8)
    for number, tap in enumerate((x, net.conv(x, 8))):
        net.head(tap, f"logits{number}")
        net.outputs.pop()
        net.output(net.node("Softmax", f"logits{number}", out=f"p{number}", axis=1), (1, 10))
    found = inspect(read(net.model()))
    _, results = uses_of(found.graph.ids, found.graph.tensors)
    assert len(results) == RESULTS * 2 + 2
    assert [exit_.is_probability for exit_ in found.network.spec.exits] == [True, True]
    assert operators(found, found.division.branches[0]).count("nn.softmax") == 1


def operators(found, subgraphs):
    return [name for id_ in subgraphs for name in found.graph.by_id[id_].operators]


def test_chain_is_cut_after_each_layer():
    found = inspected("chain")
    division = found.division
    assert division.needs == ((), ())
    for segment in division.trunk:
        assert operators(found, segment).count("nn.conv2d") == 1
    for branch in division.branches:
        assert "nn.conv2d" not in operators(found, branch)
        assert "argmax" in operators(found, branch)
    assert "argmax" in operators(found, division.trunk[-1])
    assert list(division.stages()) == ["trunk0", "branch0", "trunk1", "branch1", "trunk2"]


def test_exit_with_two_taps_waits_for_both():
    found = inspected("residual")
    first, last = found.division.trunk
    assert operators(found, first).count("nn.conv2d") == 2
    assert operators(found, last).count("nn.conv2d") == 1


def test_exit_that_reads_another_exit_lists_it():
    found = inspected("cascade")
    assert found.division.needs == ((), (0,))
    assert found.division.needed_by(1) == {0}
    alone = sum(map(found.flops, (*found.division.trunk[:2], *found.division.branches)))
    assert found.flops_until(1) == alone


def test_branches_are_needed_through_others():
    reads = {"a": ("input.0",), "b": ("a.0",), "c": ("b.0",), "d": ("input.0",)}
    results = [f"{id_}.0" for id_ in "abcd" for _ in range(RESULTS)]
    division = divide(reads, results, 4)
    assert division.needs == ((), (0,), (1,))
    assert division.needed_by(2) == {0, 1}


def test_logits_that_the_final_exit_reads_are_trunk():
    found = inspected("stacked")
    assert "matmul" in operators(found, found.division.trunk[0])
    assert "matmul" not in operators(found, found.division.branches[0])
    assert "argmax" in operators(found, found.division.branches[0])


def test_exit_on_the_input_waits_for_nothing():
    division = inspected("on_input").division
    assert division.trunk[0] == ()
    assert list(division.stages()) == ["branch0", "trunk1"]


def test_second_exit_on_a_tap_waits_for_no_more_of_the_trunk():
    division = inspected("shared_tap").division
    assert division.trunk[0]
    assert division.trunk[1] == ()
    assert division.branches[1]


def test_exits_out_of_order_keep_the_order_of_the_specification():
    network = read(NETWORKS["chain"]())
    early, late, final = network.spec.exits
    found = inspect(read(network.source, replace(network.spec, exits=(late, early, final))))
    assert operators(found, found.division.trunk[0]).count("nn.conv2d") == 2
    assert found.division.trunk[1] == ()
    assert any("'exit1' follows 'exit2' but takes less work" in text for text in found.remarks)


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
