"""A CPU beside a GPU: small batches stay, large ones go, and the crossover is where the costs say."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from learning import convolution, profile
from problems import brute_force, price_tensors
from tiers import examples

from layoutsel.core.workload import BoundaryTensor
from layoutsel.cost.device_peaks import DevicePeaks
from layoutsel.cost.links import Links
from layoutsel.cost.place import HOST, Place
from layoutsel.cost.roofline import RooflineCost
from layoutsel.cost.tensor import Tensor, TensorUse
from layoutsel.planning.alternatives import best_with
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph
from layoutsel.planning.solve import solve
from tests.links import both_ways
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.devices import HOST_DEVICE, DeviceId

GPU = DevicePeaks(
    name="a card",
    compute_units=4,
    clock_mhz=1000.0,
    gflops=40_000.0,
    memory_gbps=800.0,
    launch_us=5.0,
)
PLACES = (("cpu", HOST), ("cuda", "cuda"))


def chain(times, copy_us, parents=None):
    """Sub-graphs that take ``times[i] = (on the host, on the device)``, behind each other or behind `parents`."""
    ids = [SubgraphId(f"s{i}") for i in range(len(times))]
    parents = parents or [[i - 1] for i in range(len(times))]
    nodes = [
        PricedSubgraph(
            id=id_,
            options=tuple(
                Option(
                    decision=Decision(unit=unit, layout="NCHW"),
                    cost_us=us,
                    in_layouts=("NCHW",) * len(read),
                    out_layouts=("NCHW",),
                )
                for (unit, _), us in zip(PLACES, both, strict=True)
            ),
        )
        for id_, both, read in zip(ids, times, parents, strict=True)
    ]
    uses = {i: [] for i in range(-1, len(times))}
    for i, read in enumerate(parents):
        for position, source in enumerate(read):
            uses[source].append(TensorUse(consumer=ids[i], input_index=position))
    uses[len(times) - 1].append(TensorUse(consumer=None, input_index=0))
    made = [
        Tensor(producer=None if i < 0 else ids[i], output_index=0, uses=tuple(used), shape=(1,))
        for i, used in uses.items()
        if used
    ]
    priced = price_tensors(made, nodes, lambda *_: 0.0, lambda *_: 0.0, lambda *_: copy_us)
    return PlanningProblem(nodes=tuple(nodes), tensors=priced)


def on_gpu(problem):
    return {id_ for id_, d in solve(problem).decisions.items() if d.unit == "cuda"}


def alone(problem, memory):
    decisions = best_with(problem, lambda _, option: option.memory == memory)
    return problem.cost(decisions).total_us


def rooflines(batch, link_gbps=10.0):
    """A network of four convolutions at a batch, on a CPU and a GPU."""
    cuda = DeviceId("", "cuda", 0)
    links = Links.of(both_ways(HOST_DEVICE, cuda, latency_us=10.0, gbps=link_gbps))
    model = RooflineCost(peaks=profile().peaks, devices={"cuda": GPU}, links=links)
    layers = [convolution(*sizes) for sizes in ((16, 16, 14), (16, 32, 7, 3), (32, 32, 7))]
    works = [
        replace(
            work,
            flops=batch * work.flops,
            activation_bytes=batch * work.activation_bytes,
            outputs=tuple((batch, *shape[1:]) for shape in work.outputs),
        )
        for work in (*layers, layers[-1])
    ]
    times = [
        tuple(model.estimate(w, Decision(unit=unit, layout="NCHW")).us for unit, _ in PLACES)
        for w in works
    ]
    spec = BoundaryTensor(shape=(batch, 32, 7, 7), dtype="float32", bytes=batch * 4 * 32 * 49)
    there = Place(unit="cuda", device=cuda)
    return times, model.boundary(spec, Place(unit="cpu"), there).us


time_us = st.floats(0.1, 1000.0)


@given(st.lists(st.tuples(time_us, time_us), min_size=1, max_size=8), time_us)
@settings(deadline=None, max_examples=examples(50))
def test_a_plan_is_never_worse_than_one_side_alone(times, copy_us):
    problem = chain(times, copy_us)
    best = solve(problem).cost_us
    assert best <= min(alone(problem, HOST), alone(problem, "cuda")) + 1e-6
    assert alone(problem, HOST) == pytest.approx(sum(cpu for cpu, _ in times))
    assert alone(problem, "cuda") == pytest.approx(sum(gpu for _, gpu in times) + 2 * copy_us)


@given(st.data())
@settings(deadline=None)
def test_brute_force_agrees(data):
    count = data.draw(st.integers(1, 6))
    times = data.draw(st.lists(st.tuples(time_us, time_us), min_size=count, max_size=count))
    parents = [
        data.draw(st.lists(st.integers(-1, i - 1), min_size=1, max_size=2)) for i in range(count)
    ]
    problem = chain(times, data.draw(time_us), parents)
    assert solve(problem).cost_us == pytest.approx(brute_force(problem))


@given(
    st.lists(st.tuples(st.floats(1, 50), st.floats(0.1, 0.9)), min_size=1, max_size=8),
    st.floats(0.1, 20),
    st.floats(0, 100),
    st.floats(0, 20),
)
@settings(deadline=None, max_examples=examples(40))
def test_what_goes_to_the_gpu_stays_there_as_batches_grow(rates, launch_us, link_us, byte_us):
    """Where times are linear in the batch and the GPU is the faster one for each of it."""
    before: set[str] = set()
    for batch in (1, 3, 10, 30, 100):
        times = [(batch * us, launch_us + batch * us * part) for us, part in rates]
        gone = on_gpu(chain(times, link_us + batch * byte_us))
        assert before <= gone
        before = gone


@given(st.integers(1, 8), st.floats(2, 50), st.floats(0.1, 20), st.floats(1, 400))
@settings(deadline=None)
def test_the_crossover_is_where_the_costs_say(count, us, launch_us, link_us):
    """Equal sub-graphs behind each other go together, from the batch on that pays launches and two copies."""
    gpu_us = 0.25 * us
    direct = (count * launch_us + 2 * link_us) / (count * (us - gpu_us))
    for batch in {max(1, math.floor(direct) - 1), math.floor(direct) + 2} - {round(direct, 6)}:
        problem = chain([(batch * us, launch_us + batch * gpu_us)] * count, link_us)
        assert len(on_gpu(problem)) == (count if batch > direct else 0)


def test_modelled_machines_cross_over():
    batches = [2**power for power in range(9)]
    problems = {batch: chain(*rooflines(batch)) for batch in batches}
    gone = [len(on_gpu(problem)) for problem in problems.values()]
    assert gone == sorted(gone)
    assert (gone[0], gone[-1]) == (0, 4)
    for problem in problems.values():
        assert solve(problem).cost_us == pytest.approx(brute_force(problem))
    assert not on_gpu(chain(*rooflines(256, link_gbps=0.01)))
