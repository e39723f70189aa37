"""The simulator against queueing theory, and in what never changes."""

import ast
import itertools
import random
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from topologies import chain, distributions, link, route, segment, star, topology

import layoutsel
from layoutsel.cluster.problem import AtomGraph
from layoutsel.cluster.simulate import Load, simulate
from layoutsel.cluster.statistics import LinkState, NodeState, Statistics
from layoutsel.cluster.topology import Power
from layoutsel.cost.tensor import Tensor, TensorUse
from tvm_passes.decision import SubgraphId
from tvm_passes.errors import LayoutselError

FOLDER = Path(layoutsel.__file__).parent / "cluster"
ALL = (0.0, 1e12)
"""Window of every bar."""


def simulated(made, load, **options):
    return simulate(made, made.distributions[0], load, **options)


def test_one_node_waits_as_an_m_d_1_queue():
    made = distributions(star(1), [chain(["n0"], [100.0])])
    for busy in (0.5, 0.8):
        found = simulated(made, Load(requests=60_000, rate_hz=busy * 1e4))
        wait_us = 100 * busy / (2 * (1 - busy))
        assert found.mean_us - 100 == pytest.approx(wait_us, rel=0.05)
        assert found.utilisation["n0"] == pytest.approx(busy, rel=0.02)
        assert found.throughput_hz == pytest.approx(busy * 1e4, rel=0.02)
        assert found.p50_us < found.p95_us < found.p99_us


def test_equal_intervals_never_wait():
    made = distributions(star(1), [chain(["n0"], [100.0])])
    found = simulated(made, Load(requests=100, rate_hz=1e4, poisson=False))
    assert found.mean_us == pytest.approx(100)
    assert found.p99_us == pytest.approx(100)


def test_of_two_equal_queues_in_a_row_the_second_never_waits():
    alone = distributions(star(2), [chain(["n0"], [100.0])])
    load = Load(requests=5000, rate_hz=8e3)
    # Links of infinite rate for practical purposes: only processors queue.
    row = distributions(star(2, gbps=1e9), [chain(["n0", "n1"], [100.0, 100.0])])
    assert simulated(row, load).mean_us == pytest.approx(simulated(alone, load).mean_us + 100)


def test_a_pipeline_attains_the_rate_of_its_slowest_resource():
    made = distributions(star(3), [chain(["n1", "n2"], [30.0, 50.0], sizes={"p0.0": 80})])
    one = simulated(made, Load(requests=50, in_flight=1))
    # Input and result of 10 bytes pass the links in 10 µs each, the tensor between in 80.
    assert one.mean_us == pytest.approx(10 + 30 + 80 + 50 + 10)
    assert one.throughput_hz == pytest.approx(1e6 / 180)
    many = simulated(made, Load(requests=2000, in_flight=20))
    assert many.throughput_hz == pytest.approx(1e6 / 80, rel=0.01)
    assert many.utilisation["link n1>s"] == pytest.approx(1, abs=0.01)
    # Little's law: requests in progress are throughput times latency.
    assert many.mean_us * many.throughput_hz / 1e6 == pytest.approx(20, rel=0.03)


def test_bytes_pass_several_links_at_once_and_receivers_work_after_them():
    made = topology(
        [link("a", "s", cpu_us=3.0), link("s", "b", gbps=4e-3, cpu_ns_per_byte=500, rtt_us=8.0)],
        switches="s",
    )
    found = simulated(
        distributions(made, [chain(["b"], [7.0], origin="a")]), Load(requests=1, in_flight=1)
    )
    # Both ways: 3 µs at a, 20 at the slower link, half a round trip, 5 at b; and the segment.
    assert found.mean_us == pytest.approx(7 + 2 * (3 + 20 + 4 + 5))


@pytest.mark.parametrize("shared", [{"duplex": "half"}, {"shares": "air"}])
def test_both_directions_wait_for_each_other_on_a_shared_link(shared):
    full = distributions(topology([link("a", "b")]), [chain(["b"], [1.0], origin="a")])
    half = distributions(topology([link("a", "b", **shared)]), [chain(["b"], [1.0], origin="a")])
    load = Load(requests=1000, rate_hz=9e4)
    # Input and result take 10 µs each.
    assert simulated(full, load).makespan_us == pytest.approx(1000 / 0.09, rel=0.1)
    assert simulated(half, load).makespan_us == pytest.approx(1000 * 20, rel=0.01)


def test_messages_share_the_rate_of_a_link():
    made = distributions(
        topology([link("a", "b"), link("a", "c")]),
        [chain([name], [1.0], origin="a", sizes={"input.0": 60}, weight=0.5) for name in "bbc"],
    )
    found = simulated(made, Load(requests=3, rate_hz=1e6 / 20, poisson=False), window_us=ALL)
    ends = {(bar.request, bar.resource): bar.end_us for bar in found.bars}
    # The first message is alone for 20 µs, then has half the rate; the second one alike.
    assert ends[0, "link a>b"] == pytest.approx(20 + 20 + 2 * 40)
    assert ends[1, "link a>b"] == pytest.approx(20 + 20 + 2 * 40 + 20)
    assert ends[2, "link a>c"] == pytest.approx(60 + 60)


def test_routes_get_their_shares_evenly():
    weights = {"n0": 0.5, "n1": 0.3, "n2": 0.2}
    routes = [chain([node], [1.0], weight=weight) for node, weight in weights.items()]
    made = distributions(star(3), routes)
    found = simulated(made, Load(requests=100, rate_hz=1e3), window_us=ALL)
    taken = [bar.resource for bar in sorted(found.bars, key=lambda bar: bar.request)]
    taken = [name for name in taken if name in weights]
    assert Counter(taken) == {"n0": 50, "n1": 30, "n2": 20}
    assert Counter(taken[:10]) == {"n0": 5, "n1": 3, "n2": 2}


def test_branches_run_at_the_same_time_and_the_last_one_counts():
    segments = [
        segment("head", "n0", 10.0, ["input.0"], ["head.0"]),
        segment("left", "n1", 100.0, ["head.0"], ["left.0"]),
        segment("right", "n2", 60.0, ["head.0"], ["right.0"]),
        segment("tail", "n0", 5.0, ["left.0", "right.0"], ["output.0"]),
    ]
    made = distributions(star(3, gbps=1e9), [route(segments)])
    assert simulated(made, Load(requests=1, in_flight=1)).mean_us == pytest.approx(115)


def test_admission_limits_the_requests_in_progress_and_their_bytes():
    made = distributions(star(2), [chain(["n1"], [100.0], sizes={"input.0": 50})])
    free = simulated(made, Load(requests=100, rate_hz=1e5))
    held = simulated(made, Load(requests=100, rate_hz=1e5, in_flight=3))
    assert held.throughput_hz == pytest.approx(free.throughput_hz, rel=0.01)
    assert held.peak_bytes["n0"] == 150
    assert free.peak_bytes["n0"] > 1000
    # Three inputs, and the first result, which the first input outlives until its segment ends.
    assert held.peak_bytes["n1"] == 160


def test_other_work_and_slower_links_take_effect():
    made = distributions(topology([link("a", "b")]), [chain(["b"], [100.0], origin="a")])
    one = Load(requests=1, in_flight=1)
    state = Statistics(
        nodes={"b": NodeState(others_busy=0.5)},
        links=(LinkState(source="a", target="b", gbps=4e-3),),
    )
    assert simulated(made, one).mean_us == pytest.approx(120)
    assert simulated(made, one, statistics=state).mean_us == pytest.approx(240)
    # Times of segments hold for the state that the document states.
    loaded = distributions(topology([link("a", "b")]), made.distributions[0].routes, None, state)
    assert simulated(loaded, one).mean_us == pytest.approx(140)


def test_energy_is_that_of_the_busy_nodes_and_of_the_links():
    made = star(2, nj_per_byte=100.0)
    assert (
        simulated(distributions(made, [chain(["n1"], [100.0])]), Load(in_flight=1)).joules is None
    )
    power = Power(idle=1.0, busy=20.0)
    made = replace(made, nodes=tuple(replace(node, power_w=power) for node in made.nodes))
    found = simulated(distributions(made, [chain(["n1"], [100.0])]), Load(in_flight=1))
    assert found.joules == pytest.approx(20 * 100e-6 + 2 * 2 * 10 * 100e-9)


def test_a_result_that_the_origin_also_reads_arrives_once():
    tensors = (
        Tensor(
            producer=SubgraphId("p0"),
            output_index=0,
            uses=(
                TensorUse(consumer=SubgraphId("p1"), input_index=0),
                TensorUse(consumer=None, input_index=0),
            ),
            shape=(1, 1, 1, 15),
        ),
    )
    graph = AtomGraph(atoms={"p0": (), "p1": ()}, tensors=tensors, weight_bytes={})
    segments = [
        segment("p0", "n1", 10.0, ["input.0"], ["p0.0", "output.0"]),
        segment("p1", "n0", 10.0, ["p0.0"], ["output.1"]),
    ]
    known = route(segments, sizes={"p0.0": 60})
    known = replace(known, transfers=tuple(t for t in known.transfers if t.tensor != "output.0"))
    made = distributions(star(2), [known])
    with pytest.raises(LayoutselError, match=r"tensor 'output\.0' never arrives"):
        simulated(made, Load(requests=1, in_flight=1))
    told = replace(made, graph=graph)
    assert simulated(told, Load(requests=1, in_flight=1)).mean_us == pytest.approx(
        10 + 10 + 60 + 10
    )


@st.composite
def random_distributions(draw):
    """Routes of random graphs over random nodes of a star, with random media."""
    chance = random.Random(draw(st.integers(0, 10_000)))
    count = chance.randint(1, 4)
    options = chance.choice([{}, {"duplex": "half"}, {"shares": "air"}, {"cpu_us": 2.0}])
    made = star(count, rtt_us=chance.choice([0.0, 30.0]), **options)
    routes = []
    for _ in range(chance.randint(1, 3)):
        segments = []
        for number in range(chance.randint(1, 5)):
            reads = [f"p{other}.0" for other in range(number) if chance.random() < 0.5]
            segments.append(
                segment(
                    f"p{number}",
                    f"n{chance.randrange(count)}",
                    chance.uniform(1.0, 50.0),
                    reads or ["input.0"],
                    [f"p{number}.0"],
                )
            )
        read = {tensor for one in segments for tensor in one.inputs}
        ends = itertools.count()
        segments = [
            segment(
                one.id,
                one.node,
                one.us,
                one.inputs,
                one.outputs if one.outputs[0] in read else [f"output.{next(ends)}"],
            )
            for one in segments
        ]
        sizes = {f"p{number}.0": chance.randint(1, 60) for number in range(5)}
        routes.append(route(segments, sizes=sizes, weight=chance.uniform(0.1, 1.0)))
    return distributions(made, routes)


@settings(max_examples=60, deadline=None)
@given(random_distributions(), st.sampled_from([1, 3, None]), st.integers(0, 3))
def test_every_request_ends_once_and_resources_rest_only_without_work(made, limit, seed):
    load = Load(requests=60, rate_hz=2e4, in_flight=limit, seed=seed)
    found = simulated(made, load, window_us=ALL)
    assert found.lost == found.replayed == 0
    assert all(b >= a for a, b in zip(found.arrivals_us, found.ends_us, strict=True))
    assert found == simulated(made, load, window_us=ALL)
    by_resource = {}
    for bar in found.bars:
        by_resource.setdefault(bar.resource, []).append(bar)
    for name, bars in by_resource.items():
        bars.sort(key=lambda bar: bar.start_us)
        if name.startswith("n"):  # a processor
            assert all(a.end_us <= b.start_us + 1e-6 for a, b in itertools.pairwise(bars))
        # A resource rests only while no work is left for it.
        busy_us = end_us = 0.0
        for bar in bars:
            busy_us += max(bar.end_us - max(bar.start_us, end_us), 0.0)
            end_us = max(end_us, bar.end_us)
        assert busy_us == pytest.approx(found.utilisation[name] * found.makespan_us)
    # Each request has run every segment of its route exactly once.
    ids = [tuple(sorted(s.id for s in r.segments)) for r in made.distributions[0].routes]
    nodes = {f"n{number}" for number in range(4)}
    for _, bars in itertools.groupby(
        sorted(found.bars, key=lambda bar: bar.request), key=lambda bar: bar.request
    ):
        done = [b.step for b in bars if b.resource in nodes and b.step.startswith("p")]
        assert tuple(sorted(step for step in done if "." not in step)) in ids


@settings(max_examples=30, deadline=None)
@given(random_distributions())
def test_no_load_exceeds_the_bound_of_the_busiest_resource(made):
    found = simulated(made, Load(requests=400, in_flight=12), window_us=ALL)
    busiest_us = max(found.utilisation.values()) * found.makespan_us / found.requests
    bound_hz = 1e6 / busiest_us if busiest_us else float("inf")
    assert found.requests / found.makespan_us * 1e6 <= bound_hz * (1 + 1e-9)


def test_a_seed_determines_the_arrivals():
    made = distributions(star(1), [chain(["n0"], [10.0])])
    first, again, other = (
        simulated(made, Load(requests=50, rate_hz=1e4, seed=seed)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.arrivals_us != other.arrivals_us


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        ([chain(["n9"], [1.0])], "got node 'n9'; expected one of n0, n1"),
        ([chain(["s"], [1.0])], "got node 's'"),
        (
            [route([segment("p", "n0", 1.0, ["q.0"], ["output.0", "q.0"])])],
            "tensor 'q.0' never arrives at node 'n0'",
        ),
        (
            [
                type(r := chain(["n0", "n1"], [1.0, 1.0]))(
                    weight=1.0, segments=r.segments, transfers=()
                )
            ],
            "tensor 'p0.0' never arrives at node 'n1'",
        ),
        ([route([segment("p", "n0", 1.0, ["input.0"], ["p.0"])])], "no segment makes an output"),
        (
            [route([segment(i, "n0", 1.0, ["input.0"], ["output.0"]) for i in "pq"])],
            "tensor 'output.0' arrives 2 times at node 'n0'",
        ),
    ],
)
def test_impossible_routes_are_refused(routes, message):
    with pytest.raises(LayoutselError, match=message):
        simulated(distributions(star(2), routes), Load(requests=1, in_flight=1))


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (Load(requests=0, in_flight=1), "requests: got 0"),
        (Load(rate_hz=0.0), "rate: got 0 Hz"),
        (Load(rate_hz=float("nan")), "rate: got nan Hz"),
        (Load(in_flight=0), "in flight: got 0"),
        (Load(), "no rate of arrival"),
    ],
)
def test_impossible_loads_are_refused(load, message):
    with pytest.raises(LayoutselError, match=message):
        simulated(distributions(star(1), [chain(["n0"], [1.0])]), load)


DOCUMENTS = {
    "layoutsel.documents",
    "layoutsel.cluster.distribution",
    "layoutsel.cluster.segments",
    "layoutsel.cluster.statistics",
    "layoutsel.cluster.topology",
    "layoutsel.cluster.links",
    "layoutsel.planning.plan",
    "layoutsel.planning.resources",
    "tvm_passes.errors",
}
"""What the simulator may import of this project: documents, links, and what resources are."""


def test_the_simulator_imports_no_planner():
    modules = ["layoutsel.cluster.simulate"]
    for module in modules:
        file = FOLDER / f"{module.rpartition('.')[2]}.py"
        for node in ast.walk(ast.parse(file.read_text())):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.startswith(("layoutsel", "tvm_passes")) for name in names)
            if not isinstance(node, ast.ImportFrom):
                continue
            source = node.module
            if source == "layoutsel":
                (source,) = (f"layoutsel.{one.name}" for one in node.names)
            if source.startswith(("layoutsel", "tvm_passes")) and source not in DOCUMENTS:
                assert source.startswith("layoutsel.cluster."), (module, source)
                if source not in modules:
                    modules.append(source)
    assert len(modules) == 5


@pytest.mark.nightly
def test_a_thousand_nodes_take_less_than_a_minute():
    names = [f"n{number}" for number in range(1000)]
    routes = [
        chain(names[first : first + 10], [100.0] * 10, weight=0.01) for first in range(0, 1000, 10)
    ]
    made = distributions(star(1000, gbps=8.0, rtt_us=100.0), routes)
    started = time.monotonic()
    found = simulated(made, Load(requests=10_000, rate_hz=1e5))
    assert time.monotonic() - started < 60
    assert found.lost == 0
    assert found.throughput_hz == pytest.approx(1e5, rel=0.05)
    assert all(found.utilisation[name] == pytest.approx(0.1, rel=0.1) for name in names)
