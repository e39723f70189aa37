"""What plans pay for concatenations whose parts can be written in place."""

from __future__ import annotations

import pytest
import tvm
from tvm import relax

from layoutsel.building.in_place import InPlaceConcats
from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from tvm_passes.decision import Decision

nn, op = relax.op.nn, relax.op


def network() -> tvm.IRModule:
    """Three concatenations: of parts that can move; of one that can and an input; with a ReLU behind it."""
    x = relax.Var("x", relax.TensorType((1, 16, 8, 8), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            pools = [
                builder.emit(nn.max_pool2d(x, (k, k), padding=(k // 2, k // 2))) for k in (3, 5, 7)
            ]
            both = builder.emit(op.concat(pools[:2], axis=1))
            half = builder.emit(op.concat([x, pools[2]], axis=1))
            mixed = [builder.emit(nn.avg_pool2d(y, (2, 2))) for y in (both, half)]
            last = builder.emit(nn.relu(builder.emit(op.concat(mixed, axis=1))))
            result = builder.emit_output(nn.avg_pool2d(last, (2, 2)))
        builder.emit_func_output(result)
    return builder.get()


@pytest.fixture(scope="module")
def session() -> Session:
    return Session.open(network(), units=("cpu",), threads=1)


def test_the_share_that_is_copied(session):
    found = InPlaceConcats.read(session.graph, session.functions)
    concats = [s for s in session.graph.subgraphs if s.anchor == "concat"]
    for layout in ("NCHW", "NHWC", "NCHW16c"):
        decision = Decision(unit="cpu", layout=layout)
        assert [found.copied(s, decision) for s in concats] == [0.0, 0.5, 1.0]
    assert found.copied(concats[0], Decision(unit="onednn", layout="NHWC")) == 1.0


def test_a_plan_pays_for_what_is_copied_alone(session):
    problem = priced_problem(Offers.of(session), "learned")
    both, half, fused = (s.id for s in session.graph.subgraphs if s.anchor == "concat")
    decision = Decision(unit="cpu", layout="NHWC")
    assert problem.by_id[both].option(decision).cost_us == 0.0
    assert problem.by_id[half].option(decision).cost_us > 0.0
    assert problem.by_id[fused].option(decision).cost_us > 0.0
    assert best_plan(session, problem).decisions
