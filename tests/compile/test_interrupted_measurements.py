"""A candidate that could not be measured is the last resort: neither taken for fast nor refused for ever."""

import numpy as np
import pytest
from tvm import relax

from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.core.workload import INTERRUPTED, Cost, Workload
from layoutsel.cost.measured import MeasuredCost, Request, run_in
from layoutsel.cost.store import Store
from layoutsel.device.outcome import Failure, FailureKind, Timing
from layoutsel.device.worker import Worker
from layoutsel.planning.hybrid import without_interrupted
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph
from tests.cost.test_measured import Guess
from tests.cost.test_store import CONTEXT, NHWC
from tvm_passes.decision import Decision, SubgraphId

TIMEOUT = Failure(kind=FailureKind.TIMEOUT, reason="ran longer than 60 s")


def network():
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 4, 6, 6), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            weights = relax.const(np.ones((4, 4, 3, 3), "float32"))
            output = builder.emit_output(relax.op.nn.conv2d(x, weights))
        builder.emit_func_output(output)
    return builder.finalize()


@pytest.mark.parametrize("cost", ["measured", "hybrid"])
def test_a_network_is_planned_where_no_measurement_ends(tmp_path, monkeypatch, caplog, cost):
    monkeypatch.setattr(Worker, "call", lambda _worker, _payload: TIMEOUT)
    session = Session.open(network(), units=["cpu"], threads=1, cache=tmp_path / "m.sqlite")
    problem = priced_problem(Offers.of(session), cost)
    plan = best_plan(session, problem)
    assert tuple(plan.decisions) == session.graph.ids
    if cost == "measured":
        assert {option.source for option in problem.nodes[0].options} == {INTERRUPTED}
        assert "was not measured (timeout: ran longer than 60 s)" in caplog.text
    with Store(session.context, tmp_path / "m.sqlite", announce=False) as store:
        assert store.count() == 0


def option(unit, us, source):
    return Option(
        decision=Decision(unit=unit),
        cost_us=us,
        spread_us=0.0,
        source=source,
        score_us=us,
        in_layouts=(),
        out_layouts=("NCHW",),
    )


def test_it_is_left_out_where_there_are_others():
    fast, slow = option("onednn", 1.0, INTERRUPTED), option("cpu", 9.0, "measured")
    nodes = tuple(
        PricedSubgraph(id=SubgraphId(f"s{i}"), options=options, operators=("exp",), names=())
        for i, options in enumerate([(fast, slow), (fast,)])
    )
    problem = PlanningProblem(nodes=nodes, tensors=(), model_name="m", model_hash="0")
    first, second = without_interrupted(problem).nodes
    assert first.options == (slow,)
    (decline,) = first.declines
    assert "a measurement that was interrupted" in str(decline)
    assert "the next session tries again" in str(decline)
    assert second == nodes[1]


def test_its_price_is_an_estimate_that_says_so(tmp_path):
    work = Workload(key="h", operator="exp", flops=1, weight_bytes=1, activation_bytes=1)
    with Store(CONTEXT, tmp_path / "m.sqlite") as store:
        model = MeasuredCost(store, Guess())
        model.measure_all([Request(key="h", decision=NHWC)], lambda _: TIMEOUT)
        assert model.subgraph(work, NHWC) == Cost.timed(111, 0, INTERRUPTED)


CRASH = Failure(kind=FailureKind.CRASH, reason="the process was killed by SIGSEGV")


@pytest.mark.parametrize(
    ("answers", "kept"),
    [
        ([CRASH, CRASH], CRASH),
        ([CRASH, Failure(kind=FailureKind.KILLED, reason="by somebody")], "by somebody"),
        ([TIMEOUT], TIMEOUT),
    ],
)
def test_a_crash_is_believed_when_it_happens_twice(answers, kept):
    class Scripted:
        function = "a script"

        def call(self, _payload):
            return answers.pop(0)

    outcome = run_in(Scripted())(Request(key="h", decision=NHWC))
    assert not isinstance(outcome, Timing)
    assert kept in (outcome, outcome.reason)
    assert not answers
