"""The graph of a model is planned without TVM and without code."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from layoutsel.building.functions import Functions
from layoutsel.cost.graph import Edge, Graph, Subgraph
from layoutsel.cost.operations import Operation, TypedShape
from layoutsel.cost.workload import SubgraphShapes
from layoutsel.model import import_model
from layoutsel.model.graph import read_graph
from tests.runtime.branching import network
from tvm_passes.decision import SubgraphId
from tvm_passes.partition import PartitionSubgraphs

IMAGE = TypedShape((1, 8, 4, 4))
A, B, C = map(SubgraphId, "abc")

PLAN = """
import pickle, sys
sys.modules["tvm"] = sys.modules["tvm_ffi"] = None
from layoutsel.planning.prices import price_all
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph
from layoutsel.planning.solve import solve
from tvm_passes.decision import Decision

graph = pickle.load(sys.stdin.buffer)
def option(one, layout, us):
    return Option(decision=Decision(unit="cpu", layout=layout), cost_us=us,
                  in_layouts=(layout,) * len(one.inputs), out_layouts=(layout,))
nodes = tuple(
    PricedSubgraph(id=one.id, options=(option(one, "NCHW", 3.0), option(one, "NHWC", 1.0)),
                   operators=one.operators)
    for one in graph.subgraphs
)
free = lambda boundaries: [0.0] * len(boundaries)
problem = PlanningProblem(nodes=nodes, tensors=price_all(graph.tensors, nodes, free),
                          model_name="m", model_hash="h")
decisions = solve(problem).decisions
assert {str(one) for one in decisions.values()} == {"cpu:NHWC"}
print(*decisions)
"""


def subgraph(id_, operator, inputs=1):
    operands = (IMAGE,) * inputs
    return Subgraph(
        id=id_,
        shapes=SubgraphShapes(
            operations=(Operation(operator=operator, inputs=operands, outputs=(IMAGE,)),),
            inputs=operands,
            outputs=(IMAGE,),
        ),
        structural_hash=operator,
    )


def edge(producer, consumer, input_index=0):
    return Edge(
        producer=producer,
        output_index=0,
        consumer=consumer,
        input_index=input_index,
        tensor=IMAGE,
    )


SKIP = Graph(
    (subgraph(A, "exp"), subgraph(B, "tanh"), subgraph(C, "add", inputs=2)),
    (edge(None, A), edge(A, B), edge(A, C), edge(B, C, 1), edge(C, None)),
)
"""Add of `a` and of what `b` makes of it."""


def planned(graph):
    """The ids that a process without TVM decides, in order."""
    done = subprocess.run(
        [sys.executable, "-c", PLAN],
        input=pickle.dumps(graph),
        capture_output=True,
        check=True,
    )
    return tuple(done.stdout.decode().split())


def test_tensors_gather_edges_of_one_producer():
    assert SKIP.ids == (A, B, C)
    assert SKIP.by_id[B].operators == ("tanh",)
    found = {t.name: [(use.consumer, use.input_index) for use in t.uses] for t in SKIP.tensors}
    assert found == {
        "input.0": [(A, 0)],
        "a.0": [(B, 0), (C, 0)],
        "b.0": [(C, 1)],
        "c.0": [(None, 0)],
    }
    assert {t.bytes for t in SKIP.tensors} == {IMAGE.nbytes}


def test_a_graph_made_by_hand_is_planned_without_tvm():
    assert planned(SKIP) == SKIP.ids


def test_a_graph_that_was_read_is_planned_without_tvm():
    module = PartitionSubgraphs()(import_model(network()).module)
    graph = read_graph(module)
    assert len(graph.ids) > 2
    assert planned(graph) == graph.ids
    assert set(Functions(module)) == set(graph.ids)


@pytest.mark.parametrize(
    ("parents", "width"),
    [
        ([[], [0], [1], [2]], 1),
        ([[], [0], [0, 1], [0, 1, 2]], 1),  # shortcuts
        ([[], [0], [0], [1, 2], [3], [3], [4, 5]], 2),  # two modules of two branches
        ([[], [], [], []], 4),
        ([[], [0], [0], [1], [2], [0], [3, 4, 5]], 3),
    ],
)
def test_width_counts_the_chains(parents, width):
    ids = [SubgraphId(f"n{number}") for number in range(len(parents))]
    subgraphs = tuple(subgraph(id_, "add", inputs=2) for id_ in ids)
    edges = (
        edge(ids[maker], id_) for id_, makers in zip(ids, parents, strict=True) for maker in makers
    )
    assert Graph(subgraphs, tuple(edges)).width == width
