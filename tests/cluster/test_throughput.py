"""Strategies of throughput compared, on random networks and on nodes where each of them wins."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import examples

from layoutsel.cluster.pipelines import pipelines
from layoutsel.cluster.throughput import best_throughput
from layoutsel.cost.tensor import Tensor, TensorUse
from layoutsel.planning.columns import best_mixture
from layoutsel.planning.loads import Rooms, loads
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph
from layoutsel.planning.resources import Resources
from tests.planning.problems import small_problems
from tests.planning.test_columns import enumerated, limited, needed, networks, on, placements
from tvm_passes.decision import Decision, SubgraphId


@dataclass(frozen=True)
class Links:
    """Nodes with a processor each, and an interface for both directions."""

    receivers_transform = False

    def compute(self, unit, memory, us):
        return Resources(busy_us={memory: us})

    def boundary(self, kind, source, destination, us):
        if kind != "copy":
            return [Resources(busy_us={destination: us})]
        return [Resources(busy_us={f"{source} link": us, f"{destination} link": us})]


def chain(
    costs: list[list[float]], message_us: float, source: int | None = None
) -> PlanningProblem:
    """A chain of sub-graphs with a time on each node; messages take equally long everywhere."""
    count = len(costs[0])
    ids = [SubgraphId(f"s{i}") for i in range(len(costs))]
    places = [Decision(unit="cpu", node=f"n{j}") for j in range(count)]
    nodes = tuple(
        PricedSubgraph(
            id=id_,
            options=tuple(
                Option(decision=one, cost_us=us, in_layouts=("NCHW",), out_layouts=("NCHW",))
                for one, us in zip(places, row, strict=True)
            ),
        )
        for id_, row in zip(ids, costs, strict=True)
    )
    memories = [option.memory for option in nodes[0].options]
    copies = {(a, b): message_us for a in (*memories, "host") for b in memories if a != b}
    if source is None:  # inputs are everywhere
        copies |= {("host", memory): 0.0 for memory in memories}
    tensors = tuple(
        Tensor(
            producer=producer,
            output_index=0,
            uses=(TensorUse(consumer=consumer, input_index=0),),
            shape=(1,),
            copy_us=copies,
        )
        for producer, consumer in zip((None, *ids[:-1]), ids, strict=True)
    )
    return PlanningProblem(nodes=nodes, tensors=tensors, resources=Links())


def test_equal_nodes_replicate_the_network():
    found = best_throughput(chain([[10.0] * 3] * 4, 1.0))
    assert found.strategy == "replication"
    assert found.per_us == pytest.approx(3 / 40)
    assert found.gap < 2e-3
    assert [share for share, _ in found.routes] == pytest.approx([1 / 3] * 3)


def test_a_network_that_fits_on_no_node_becomes_a_pipeline():
    problem = chain([[10.0] * 2] * 4, 1.0)
    rooms = Rooms(
        held_bytes={node.id: 1.0 for node in problem.nodes},
        room_bytes=dict.fromkeys(("n0/cpu/0", "n1/cpu/0"), 2.0),
    )
    found = best_throughput(problem, rooms=rooms)
    assert found.strategy == "pipeline"
    assert found.replication_per_us == 0.0
    assert found.per_us == pytest.approx(1 / 20)
    assert needed(problem, rooms, [one for _, one in found.routes]) == rooms.room_bytes


def test_a_bound_is_finite_although_no_node_holds_the_whole_network():
    """The first placements break the memories' limits: prices of memory alone bound nothing."""
    problem = chain([[30.0, 10.0], [10.0, 10.0], [20.0, 50.0]], 1.0)
    rooms = Rooms(
        held_bytes=dict(zip((node.id for node in problem.nodes), (2.0, 3.0, 1.0), strict=True)),
        room_bytes={"n0/cpu/0": 3.0, "n1/cpu/0": 5.0},
    )
    found = best_mixture(problem, rooms=rooms)
    assert found.throughput == pytest.approx(1 / 20)
    assert found.bound == pytest.approx(1 / 20)


def test_nodes_that_are_good_at_different_work_share_it():
    problem = chain([[10.0, 50.0], [10.0, 50.0], [50.0, 10.0], [50.0, 10.0]], 2.0)
    found = best_throughput(problem)
    assert found.per_us >= 1 / 20 * (1 - 1e-6)
    assert found.replication_per_us == pytest.approx(2 / 120)
    assert found.pipeline_per_us == pytest.approx(1 / 20)


@settings(max_examples=examples(25), deadline=None)
@given(small_problems(), networks)
def test_the_best_strategy_is_the_best_mixture(problem, network):
    problem = on(problem, network)
    best = enumerated(problem)
    found = best_throughput(problem)
    assert found.bound_per_us >= best * (1 - 1e-6)
    assert best * (1 - 3e-3) <= found.per_us <= best * (1 + 1e-6)
    assert sum(share for share, _ in found.routes) == pytest.approx(1.0)
    assert max(found.replication_per_us, found.pipeline_per_us) <= found.per_us * (1 + 2e-3)
    total: dict[str, float] = {}
    for share, decisions in found.routes:
        for name, us in loads(problem, decisions).items():
            total[name] = total.get(name, 0.0) + share * us
    assert found.per_us * max(total.values()) <= 1 + 1e-6


@settings(max_examples=examples(25), deadline=None)
@given(small_problems(), networks, st.integers(0, 2**32))
def test_all_routes_fit_the_memories_together(problem, network, seed):
    problem = on(problem, network)
    rooms = limited(problem, seed)
    if not any(
        all(b <= rooms.room_bytes[m] for m, b in needed(problem, rooms, [one]).items())
        for one in placements(problem)
    ):
        return
    found = best_throughput(problem, rooms=rooms)
    held = needed(problem, rooms, [one for _, one in found.routes])
    assert all(size <= rooms.room_bytes[memory] * (1 + 1e-6) for memory, size in held.items())


@settings(max_examples=examples(25), deadline=None)
@given(st.integers(2, 5), st.integers(2, 4), st.integers(0, 5))
def test_pipelines_divide_the_network_over_the_nodes(length, count, message_us):
    problem = chain([[10.0] * count] * length, float(message_us))
    found = list(pipelines(problem))
    assert found
    best = min(max(loads(problem, one).values()) for one in found)
    assert best <= max(-(-length // count) * 10.0, 2.0 * message_us) + 1e-9
