"""Tensors between memories: copied once for each memory, handed over within one."""

import itertools
import random
from dataclasses import replace

import pytest
from problems import UNITS, graph_problem, option, price_tensors

from layoutsel.cost.place import HOST
from layoutsel.cost.tensor import Tensor, TensorUse
from layoutsel.planning.problem import PlanningProblem, PricedSubgraph
from layoutsel.planning.solve import SOLVERS, solve
from tvm_passes.decision import Decision, SubgraphId

ALL = (*UNITS, "opencl", "cuda")


def fan(readers: int) -> PlanningProblem:
    """One sub-graph that `readers` others read, each on any unit; boundaries have distinct prices."""
    names = [SubgraphId(f"s{i}") for i in range(readers + 1)]
    nodes = [
        PricedSubgraph(id=n, options=tuple(option(u, "NCHW", 1.0) for u in ALL)) for n in names
    ]
    made = Tensor(
        producer=names[0],
        output_index=0,
        uses=tuple(TensorUse(consumer=name, input_index=0) for name in names[1:]),
        shape=(1, 8, 4, 4),
    )
    read = replace(made, producer=None, uses=(TensorUse(consumer=names[0], input_index=0),))
    tensors = price_tensors(
        [read, made],
        nodes,
        lambda *_: 1000.0,
        lambda _, source, __: 0.0 if source == HOST else 3.0,
        lambda _, source, destination: 50.0 if HOST in (source, destination) else 100.0,
    )
    return PlanningProblem(nodes=tuple(nodes), tensors=tensors)


@pytest.mark.parametrize(
    ("producer", "readers", "us"),
    [
        ("opencl", ("cpu", "onednn"), 50.0),  # one copy for both
        ("opencl", ("cpu", "onednn", "opencl"), 50.0),
        ("opencl", ("cpu", "cuda"), 150.0),
        ("cpu", ("opencl", "opencl"), 50.0),
        ("cpu", ("onednn", "onednn"), 3.0),
        ("cpu", ("onednn", "opencl"), 53.0),
        ("opencl", ("opencl",), 0.0),
    ],
)
def test_a_tensor_is_copied_once_for_each_memory(producer, readers, us):
    problem = fan(len(readers))
    chosen = [Decision(unit=unit, layout="NCHW") for unit in (producer, *readers)]
    cost = problem.cost(dict(zip(problem.by_id, chosen, strict=True)))
    paid = [boundary for boundary in cost.boundaries if boundary.tensor == "s0.0"]
    assert sum(boundary.cost_us for boundary in paid) == us
    assert {boundary.kind for boundary in paid if boundary.cost_us >= 50} <= {"copy"}


def test_a_copy_names_all_who_read_it():
    problem = fan(3)
    units = ("opencl", "cpu", "onednn", "cpu")
    chosen = [Decision(unit=unit, layout="NCHW") for unit in units]
    cost = problem.cost(dict(zip(problem.by_id, chosen, strict=True)))
    (copy,) = (b for b in cost.boundaries if b.tensor == "s0.0")
    assert (copy.kind, copy.source, copy.destination) == ("copy", "opencl", HOST)
    assert copy.consumers == ("s1", "s2", "s3")


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("seed", range(5))
def test_solvers_agree_where_memories_are_several(solver, seed):
    parents = [[-1], [0], [0], [1, 2], [3, 0]]
    problem = graph_problem(parents, random.Random(seed), layouts=("NCHW",), units=ALL, scale=9.0)
    decisions = [[o.decision for o in node.options] for node in problem.nodes]
    best = min(
        problem.cost(dict(zip(problem.by_id, choice, strict=True))).total_us
        for choice in itertools.product(*decisions)
    )
    solution = solve(problem, solver=solver)
    assert solution.bound_us <= best + 1e-6
    if solver != "dual":
        assert solution.cost_us == pytest.approx(best)
    assert problem.cost(solution.decisions).total_us == pytest.approx(solution.cost_us)
