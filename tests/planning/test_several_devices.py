"""Several devices of one kind: exchangeable ones are found, the sum needs one of them, the makespan uses all."""

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import (
    graph_problem,
    option,
    price_tensors,
    random_parents,
    small_problems,
    tensors_between,
    twinned,
)
from tiers import examples

from layoutsel.cost.links import DeviceLink, Links
from layoutsel.cost.place import HOST
from layoutsel.cost.tensor import Tensor, TensorUse
from layoutsel.planning.makespan import schedule
from layoutsel.planning.makespan_bound import relaxed
from layoutsel.planning.parallel import solve_parallel
from layoutsel.planning.pins import apply_pins
from layoutsel.planning.problem import PlanningProblem, PricedSubgraph
from layoutsel.planning.solve import SOLVERS, solve
from layoutsel.planning.symmetry import interchangeable, without_twins
from layoutsel.planning.tables import build_tables
from tests.links import both_ways
from tvm_passes.decision import SubgraphId
from tvm_passes.devices import HOST_DEVICE, DeviceId

SLACK_US = 1e-6
DEVICES = tuple(DeviceId("", "opencl", index) for index in range(3))
FORK = [[-1], [0], [0], [1, 2]]


def every_plan(problem: PlanningProblem):
    for options in itertools.product(*(node.options for node in problem.nodes)):
        yield {node.id: o.decision for node, o in zip(problem.nodes, options, strict=True)}


def problem_of(parents, *, seed=0, units=("cpu", "opencl"), layouts=("NCHW",), scale=40.0):
    return graph_problem(parents, random.Random(seed), layouts=layouts, units=units, scale=scale)


def change_first(problem, change):
    """`problem` with its first sub-graph's options changed."""
    first, *rest = problem.nodes
    return replace(problem, nodes=(replace(first, options=change(first.options)), *rest))


def test_devices_with_equal_prices_are_interchangeable():
    problem = twinned(problem_of(FORK), 3)
    assert interchangeable(problem) == (DEVICES,)
    assert interchangeable(problem_of(FORK)) == ()
    assert interchangeable(problem_of(FORK, units=("cpu", "opencl", "cuda"))) == ()


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda options: [replace(o, cost_us=o.cost_us + (o.memory == "opencl/1")) for o in options],
         (DEVICES[0], DEVICES[2])),
        (lambda options: [o for o in options if o.memory != "opencl"], DEVICES[1:]),
        (lambda options: [o for o in options if o.memory in (HOST, "opencl/2")], DEVICES[:2]),
    ],
)  # fmt: skip
def test_a_device_with_another_price_or_candidate_is_not(change, left):
    problem = change_first(twinned(problem_of(FORK), 3), lambda o: tuple(change(o)))
    assert interchangeable(problem) == (left,)


def test_a_pin_to_one_device_makes_it_another():
    problem = apply_pins(twinned(problem_of(FORK), 3), ["s1=opencl@1"])
    assert interchangeable(problem) == ((DEVICES[0], DEVICES[2]),)


def test_a_link_in_one_direction_makes_a_difference():
    problem = twinned(problem_of(FORK), 2)
    *others, last = problem.tensors
    pair = ("opencl", "opencl/1")
    tensor = next(tensor for tensor in others if pair in tensor.copy_us)
    faster = replace(tensor, copy_us={**tensor.copy_us, pair: 0.01})
    changed = [faster if one is tensor else one for one in others]
    assert interchangeable(replace(problem, tensors=(*changed, last))) == ()


@settings(max_examples=examples(60), deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 4),
    twins=st.integers(2, 3),
    between_us=st.sampled_from([None, 0.0, 3.0]),
)
def test_the_least_sum_needs_one_of_them(seed, count, twins, between_us):
    rng = random.Random(seed)
    single = problem_of(random_parents(count, rng, reach=count), seed=seed, scale=5.0)
    problem = twinned(single, twins, between_us)
    best_us = min(problem.cost(plan).total_us for plan in every_plan(problem))
    for solver in SOLVERS:
        found = solve(problem, solver=solver)
        assert found.bound_us <= best_us + SLACK_US
        assert problem.cost(found.decisions).total_us == pytest.approx(found.cost_us)
        if solver != "dual":
            assert found.cost_us == pytest.approx(best_us)
    assert solve(single).cost_us == pytest.approx(best_us)


def test_solvers_see_no_more_than_one_device():
    single = problem_of(random_parents(40, random.Random(1), reach=4), layouts=("NCHW", "NHWC"))
    eight = twinned(single, 8)
    assert [len(costs) for costs in build_tables(without_twins(eight)).costs] == [4] * 40
    assert solve(eight).decisions == solve(single).decisions


def test_pins_to_different_devices_are_honoured_and_priced():
    problem = twinned(problem_of(FORK), 2, between_us=7.0)
    pinned = apply_pins(problem, ["s0=opencl@1", "s1=opencl@0", "s[23]=opencl"])
    found = solve(pinned)
    best = min(every_plan(pinned), key=lambda plan: problem.cost(plan).total_us)
    assert problem.cost(found.decisions).total_us == pytest.approx(problem.cost(best).total_us)
    assert str(found.decisions["s0"]) == "opencl@1:NCHW"
    copies = [b for b in problem.cost(found.decisions).boundaries if b.kind == "copy"]
    assert ("opencl/1", "opencl", 7.0) in [(b.source, b.destination, b.cost_us) for b in copies]


@settings(max_examples=examples(25), deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 4), between_us=st.sampled_from([None, 1.0]))
def test_no_schedule_is_shorter_than_the_bound(seed, count, between_us):
    """The bound's order of interchangeable devices leaves a best plan in."""
    rng = random.Random(seed)
    single = problem_of(random_parents(count, rng, reach=count), seed=seed, scale=5.0)
    problem = twinned(single, 2, between_us)
    best_us = min(schedule(problem, plan).makespan_us for plan in every_plan(problem))
    assert relaxed(problem).bound_us <= best_us + SLACK_US
    found = solve_parallel(problem, solve(problem).decisions)
    assert best_us - SLACK_US <= found.schedule.makespan_us


@settings(max_examples=examples(15), deadline=None)
@given(problem=small_problems())
def test_other_problems_have_no_twins(problem):
    assert without_twins(problem) == problem


def branches(lengths, us=100.0, host_us=1000.0, copy_us=1.0, devices=2):
    """A stem on the host, chains of sub-graphs that the devices are good at, and what joins them on the host."""
    parents, ends = [[-1]], []
    for length in lengths:
        parents.append([0])
        parents.extend([len(parents) - 1] for _ in range(length - 1))
        ends.append(len(parents) - 1)
    parents.append(ends)
    ids = [SubgraphId(f"s{i}") for i in range(len(parents))]
    units = ["cpu", *(f"cuda@{index}" for index in range(devices))]
    on_host = {0, len(parents) - 1}
    nodes = [
        PricedSubgraph(
            id=id_,
            options=tuple(
                option(
                    unit,
                    "NCHW",
                    (1.0 if i in on_host else us if index else host_us),
                    inputs=len(sources),
                )
                for index, unit in enumerate(units)
                if not index or i not in on_host
            ),
        )
        for i, (id_, sources) in enumerate(zip(ids, parents, strict=True))
    ]
    tensors = tensors_between(ids, parents)
    free = lambda *_: 0.0  # noqa: E731 - three prices, two of them nothing
    priced = price_tensors(tensors, nodes, free, free, lambda *_: copy_us)
    return PlanningProblem(nodes=tuple(nodes), tensors=priced)


def makespan_us(problem):
    return solve_parallel(problem, solve(problem).decisions).schedule.makespan_us


def test_two_devices_halve_the_time_of_two_branches():
    one, two = (branches([3, 3], devices=devices) for devices in (1, 2))
    assert makespan_us(one) == pytest.approx(606.0, abs=4.0)
    found = solve_parallel(two, solve(two).decisions)
    assert found.schedule.makespan_us == pytest.approx(306.0, abs=4.0)
    assert found.bound_us > 0.95 * found.schedule.makespan_us
    devices = [{found.decisions[f"s{i}"].device for i in ids} for ids in ((1, 2, 3), (4, 5, 6))]
    assert sorted(map(len, devices)) == [1, 1]
    assert devices[0] != devices[1]


def test_uneven_branches_are_dealt_out():
    """Five chains over three devices: the longest has one for itself."""
    problem = branches([4, 2, 2, 2, 1], devices=3)
    assert makespan_us(problem) == pytest.approx(400.0, abs=20.0)


def test_each_device_is_a_resource_of_its_own():
    problem = branches([2, 2])
    plan = {id_: problem.by_id[id_].options[0].decision for id_ in ("s0", "s5")}
    same = {f"s{i}": problem.by_id[SubgraphId("s1")].options[1].decision for i in range(1, 5)}
    apart = {
        f"s{i}": problem.by_id[SubgraphId("s1")].options[1 + (i > 2)].decision for i in range(1, 5)
    }
    together = schedule(problem, {**plan, **same})
    assert together.makespan_us > 400
    found = schedule(problem, {**plan, **apart})
    assert found.makespan_us < 210
    places = {place for span in found.spans for place in span.places}
    assert places == {HOST, "cuda", "cuda/1"}


ABLE = ("cuda", "cuda@1")
"""Devices of which each is good at every other sub-graph of a chain."""


def chain_over(links: Links, nbytes: int = 1 << 20) -> PlanningProblem:
    """Four sub-graphs in a row; copies cost what the links say."""
    ids = [SubgraphId(f"s{i}") for i in range(4)]
    nodes = [
        PricedSubgraph(
            id=id_,
            options=tuple(
                option(unit, "NCHW", 100.0 if i % 2 == index else 190.0)
                for index, unit in enumerate(ABLE)
            ),
        )
        for i, id_ in enumerate(ids)
    ]
    ends = [None, *ids, None]
    tensors = [
        Tensor(
            producer=producer,
            output_index=0,
            uses=(TensorUse(consumer=consumer, input_index=0),),
            shape=(1,),
            bytes=nbytes,
        )
        for producer, consumer in itertools.pairwise(ends)
    ]
    named = {HOST: HOST_DEVICE, "cuda": CUDA[0], "cuda/1": CUDA[1]}
    priced = price_tensors(
        tensors,
        nodes,
        lambda *_: 0.0,
        lambda *_: 0.0,
        lambda tensor, source, destination: links.copy_us(
            named[source], named[destination], tensor.bytes
        ),
    )
    return PlanningProblem(nodes=tuple(nodes), tensors=priced)


CUDA = tuple(DeviceId("", "cuda", index) for index in range(2))
HOST_LINKS = tuple(
    link for one in CUDA for link in both_ways(HOST_DEVICE, one, latency_us=10.0, gbps=20.0)
)


def test_a_fast_direct_link_changes_the_plan():
    direct = both_ways(*CUDA, latency_us=5.0, gbps=300.0)
    without, fast = (chain_over(Links.of(links)) for links in (HOST_LINKS, (*HOST_LINKS, *direct)))
    alone, divided = solve(without), solve(fast)
    assert len({decision.device for decision in alone.decisions.values()}) == 1
    assert [d.index for _, d in sorted(divided.decisions.items())] == [0, 1, 0, 1]
    assert divided.cost_us < alone.cost_us
    for problem, found in ((without, alone), (fast, divided)):
        best_us = min(problem.cost(plan).total_us for plan in every_plan(problem))
        assert found.cost_us == pytest.approx(best_us)
    slow = [replace(link, gbps=1.0) for link in direct]
    assert solve(chain_over(Links.of((*HOST_LINKS, *slow)))).decisions == alone.decisions


@given(
    latency_us=st.floats(0.1, 100),
    gbps=st.floats(0.1, 1000),
    faster=st.floats(1.0, 100),
    nbytes=st.integers(0, 1 << 24),
)
@settings(deadline=None, max_examples=examples(40))
def test_a_faster_link_is_never_worse(latency_us, gbps, faster, nbytes):
    link = DeviceLink(source=CUDA[0], destination=CUDA[1], latency_us=latency_us, gbps=gbps)
    better = replace(link, latency_us=latency_us / faster, gbps=gbps * faster)
    costs = [
        solve(chain_over(Links.of((*HOST_LINKS, one)), nbytes)).cost_us for one in (better, link)
    ]
    assert costs[0] <= costs[1] + SLACK_US


def test_a_copy_to_another_device_begins_before_its_source_gets_more_work():
    """A device does what it was given in order: a copy that comes later waits for all of it."""
    problem = branches([3, 2], copy_us=10.0)
    first = problem.by_id[SubgraphId("s1")].options[1]
    stem = replace(first, in_layouts=("NCHW",))
    nodes = tuple(
        replace(node, options=(*node.options, stem)) if node.id == "s0" else node
        for node in problem.nodes
    )
    tensors = price_tensors(problem.tensors, nodes, lambda *_: 0.0, lambda *_: 0.0, lambda *_: 10.0)
    problem = replace(problem, nodes=nodes, tensors=tensors)
    units = {"s0": "cuda", "s6": "cpu", **dict.fromkeys(("s4", "s5"), "cuda@1")}
    plan = {
        node.id: next(
            o.decision for o in node.options if o.decision.placed_unit == units.get(node.id, "cuda")
        )
        for node in problem.nodes
    }
    found = schedule(problem, plan)
    spans = {span.name: span for span in found.spans}
    assert spans["s4"].start_us < spans["s1"].end_us
    # In and out of the devices, the stem and three of a branch; its copy delays the branch.
    assert found.makespan_us == pytest.approx(10 + 100 + 10 + 300 + 10 + 1, abs=11)
