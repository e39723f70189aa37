"""Resources of steps: one host with devices, and a network of nodes that schedules and bounds know nothing about."""

import itertools
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import examples

from layoutsel.cost.place import HOST
from layoutsel.cost.tensor import Tensor, TensorUse
from layoutsel.planning.makespan import schedule
from layoutsel.planning.makespan_bound import relaxed
from layoutsel.planning.parallel import solve_parallel
from layoutsel.planning.problem import ONE_HOST, PlanningProblem, PricedSubgraph
from layoutsel.planning.resources import Resources
from layoutsel.planning.solve import solve
from tests.planning.problems import option, price_tensors, small_problems
from tvm_passes.decision import SubgraphId

SLACK_US = 1e-6


@dataclass(frozen=True)
class Network:
    """Nodes that compute by themselves; a transfer occupies a sender, a receiver for half as long, and takes longer."""

    latency_us: float
    receivers_transform = False

    def compute(self, unit, memory, us):
        return Resources(busy_us={memory: us})

    def boundary(self, kind, source, destination, us):
        if kind != "copy":
            return [Resources(busy_us={destination: us})]
        busy_us = {f"{source} out": us, f"{destination} in": us / 2}
        return [Resources(busy_us=busy_us, delay_us=self.latency_us)]


@pytest.mark.parametrize(
    ("kind", "source", "destination", "names", "blocks"),
    [
        ("copy", HOST, "opencl", (HOST, "opencl"), True),
        ("copy", "opencl", HOST, (HOST, "opencl"), True),
        ("copy", "opencl", "cuda", (HOST, "opencl", "cuda"), True),
        ("transform", "opencl", "opencl", ("opencl",), False),
        ("transform", "opencl", HOST, (HOST,), True),
        ("transform", "opencl", "cuda", (HOST, "opencl"), True),
        ("crossing", HOST, HOST, (HOST,), True),
    ],
)
def test_one_host_takes_part_in_all_between_memories(kind, source, destination, names, blocks):
    (found,) = ONE_HOST.boundary(kind, source, destination, 3.0)
    assert found.busy_us == dict.fromkeys(names, 3.0)
    assert (found.duration_us, found.blocks_caller, found.called_by) == (3.0, blocks, HOST)


def test_a_device_leaves_its_caller_free():
    found = ONE_HOST.compute("opencl", "opencl", 5.0)
    assert (found.busy_us, found.blocks_caller) == ({"opencl": 5.0}, False)
    assert ONE_HOST.compute("cpu", HOST, 5.0).blocks_caller


def test_the_longest_resource_and_the_delay_make_the_duration():
    found = Resources(busy_us={"out": 4.0, "in": 2.0}, delay_us=1.5)
    assert found.duration_us == 5.5
    assert not found.blocks_caller
    assert Resources(busy_us={}, delay_us=2.0).duration_us == 2.0


def two_branches() -> PlanningProblem:
    """A stem that two sub-graphs read, each with 10 µs on either node; a copy takes 4 µs."""
    ids = [SubgraphId(f"s{i}") for i in range(3)]
    units = ("cpu", "opencl")
    nodes = [
        PricedSubgraph(id=i, options=tuple(option(u, "NCHW", 10.0) for u in units)) for i in ids
    ]
    ends = [(None, [ids[0]]), (ids[0], ids[1:]), (ids[1], [None]), (ids[2], [None])]
    tensors = [
        Tensor(
            producer=producer,
            output_index=0,
            uses=tuple(TensorUse(consumer=reader, input_index=0) for reader in readers),
            shape=(1,),
        )
        for producer, readers in ends
    ]
    priced = price_tensors(tensors, nodes, lambda *_: 0.0, lambda *_: 0.0, lambda *_: 4.0)
    return PlanningProblem(nodes=tuple(nodes), tensors=priced, resources=Network(3.0))


def test_a_transfer_leaves_nodes_free_and_its_result_comes_late():
    problem = two_branches()
    units = {"s0": "cpu", "s1": "cpu", "s2": "opencl"}
    found = schedule(
        problem,
        {
            node.id: next(o.decision for o in node.options if o.decision.unit == units[node.id])
            for node in problem.nodes
        },
    )
    times = {span.name: (span.start_us, span.end_us) for span in found.spans}
    assert times["s1"] == (10.0, 20.0)
    assert times["s0.0 copy to opencl in NCHW"] == (10.0, 17.0)
    assert times["s2"] == (17.0, 27.0)
    assert times["s2.0 copy to host"] == (27.0, 34.0)
    assert found.makespan_us == 34.0


def every_plan(problem):
    for options in itertools.product(*(node.options for node in problem.nodes)):
        yield {n.id: o.decision for n, o in zip(problem.nodes, options, strict=True)}


@settings(max_examples=examples(15), deadline=None)
@given(problem=small_problems(), latency_us=st.sampled_from([0.0, 5.0, 200.0]))
def test_the_bound_holds_for_any_resources(problem, latency_us):
    problem = replace(problem, resources=Network(latency_us))
    best_us = min(schedule(problem, decisions).makespan_us for decisions in every_plan(problem))
    assert relaxed(problem).bound_us <= best_us + SLACK_US
    found = solve_parallel(problem, solve(problem).decisions)
    assert best_us - SLACK_US <= found.schedule.makespan_us
    assert found.bound_us <= best_us + SLACK_US


@settings(deadline=None)
@given(problem=small_problems(), seed=st.integers(0, 1000))
def test_nothing_starts_before_its_inputs_are_there(problem, seed):
    problem = replace(problem, resources=Network(7.0))
    plans = list(every_plan(problem))
    decisions = plans[seed % len(plans)]
    ends = {span.name: span for span in schedule(problem, decisions).spans}
    for tensor in problem.tensors:
        for use in tensor.uses:
            if tensor.producer is None or use.consumer is None:
                continue
            made, taken = (
                problem.by_id[id_].option(decisions[id_]).memory
                for id_ in (tensor.producer, use.consumer)
            )
            late_us = 7.0 if made != taken else 0.0
            assert ends[tensor.producer].end_us + late_us <= ends[use.consumer].start_us + SLACK_US
