"""Measuring candidates once each, resumably."""

import pytest

from layoutsel.core.workload import BoundaryTensor, Cost, Infeasible, Workload
from layoutsel.cost.measured import MeasuredCost, Request, confirmed, run_in
from layoutsel.cost.model import CostModel
from layoutsel.cost.place import Place
from layoutsel.cost.store import Store, Timing
from layoutsel.device.outcome import Failure, FailureKind
from layoutsel.device.worker import Worker
from tests.cost.test_store import CONTEXT, NHWC
from tvm_passes.decision import Decision

NCHW = Decision(unit="onednn", layout="NCHW")


class Guess(CostModel):
    """An estimate that is easy to recognise, and counts how often it is called."""

    calls = 0

    def subgraphs(self, questions):
        self.calls += 1
        return [Cost.timed(111, 0, "guess") for _ in questions]

    def steps(self, steps):
        self.calls += 1
        return [Cost.timed(222 if step.kind == "transform" else 333, 0, "guess") for step in steps]


class Counting:
    """A runner that remembers its requests, and is interrupted at the n-th."""

    def __init__(self, interrupt_at=None):
        self.seen, self.interrupt_at = [], interrupt_at

    def __call__(self, request):
        if len(self.seen) == self.interrupt_at:
            raise KeyboardInterrupt
        self.seen.append(request.key)
        return Timing(us=len(request.key), spread_us=0, runs=1)


@pytest.fixture
def model(tmp_path):
    with Store(CONTEXT, tmp_path / "m.sqlite") as store:
        yield MeasuredCost(store, Guess())


def requests(*keys, decision=NHWC):
    return [Request(key=key, decision=decision) for key in keys]


def test_each_key_once_and_progress(model):
    runner, reports = Counting(), []
    outcomes = model.measure_all(
        [*requests("a", "b", "a"), *requests("a", decision=NCHW)], runner, reports.append
    )
    assert runner.seen == ["a", "b", "a"]
    assert set(outcomes) == {("a", NHWC), ("b", NHWC), ("a", NCHW)}
    assert [(r.done, r.total) for r in reports] == [(1, 3), (2, 3), (3, 3)]
    model.measure_all(requests("b", "c"), runner)
    assert runner.seen == ["a", "b", "a", "c"]


def test_an_interrupt_keeps_what_was_measured(model):
    with pytest.raises(KeyboardInterrupt):
        model.measure_all(requests("a", "b", "c", "d"), Counting(interrupt_at=2))
    assert model.store.count() == 2
    rest = Counting()
    assert len(model.measure_all(requests("a", "b", "c", "d"), rest)) == 4
    assert rest.seen == ["c", "d"]


def test_answers_from_the_store_else_from_the_estimate(model):
    workload = Workload(key="a", operator="nn.conv2d", flops=1, weight_bytes=1, activation_bytes=1)
    tensor = BoundaryTensor(shape=(1, 25), dtype="float32", bytes=100)
    assert model.subgraph(workload, NHWC).us == 111
    assert model.boundary(tensor, Place("NCHW"), Place("NHWC")).us == 222
    assert model.boundary(tensor, Place(unit="cpu"), Place(unit="onednn")).us == 333
    model.store.put("a", NHWC, Timing(us=5, spread_us=1, runs=3))
    model.store.put("a", NCHW, Failure(kind=FailureKind.CRASH, reason="killed"))
    model.store.put_boundary("crossing", "cpu", "onednn", tensor, Timing(us=7, spread_us=0, runs=3))
    assert model.subgraph(workload, NHWC).us == 5
    assert model.subgraph(workload, NCHW) == Infeasible(reason="killed")
    assert model.boundary(tensor, Place(unit="cpu"), Place(unit="onednn")).us == 7


PREDICTED = Cost.timed(100, 5, "guess")


@pytest.mark.parametrize(
    ("answers", "predicted", "kept", "runs"),
    [
        ((120, 1), PREDICTED, 120, 1),
        ((20, 1), PREDICTED, 20, 1),
        ((400, 110), PREDICTED, 110, 2),
        ((400, 420), PREDICTED, 400, 2),
        ((400, None), PREDICTED, 400, 2),
        ((None, 100), PREDICTED, None, 1),
        ((400, 110), None, 400, 1),
        ((400, 110), Infeasible(reason="no"), 400, 1),
    ],
)
def test_what_is_implausibly_slow_is_measured_again(answers, predicted, kept, runs):
    outcomes = [
        Failure(kind=FailureKind.CRASH, reason="killed")
        if us is None
        else Timing(us=us, spread_us=1, runs=3)
        for us in answers
    ]
    calls = []

    def runner(request):
        calls.append(request)
        return outcomes[len(calls) - 1]

    (request,) = requests("a")
    assert getattr(confirmed(runner, lambda _: predicted)(request), "us", None) == kept
    assert calls == [request] * runs


def test_a_worker_as_runner(model):
    payloads = ["ok", "abort", "raise", "hang", "garbage", "nan", "ok"]
    todo = [
        Request(key=str(i), decision=NHWC, payload=payload) for i, payload in enumerate(payloads)
    ]
    with Worker("tests.cost.fake_workers:behave", time_limit_s=0.5) as worker:
        outcomes = model.measure_all(todo, run_in(worker))
        assert worker.starts == 4  # after each of two crashes, and after the hang
    reasons = [getattr(outcomes[str(i), NHWC], "reason", "") for i in range(len(todo))]
    assert outcomes["0", NHWC] == outcomes["6", NHWC] == Timing(us=2.0, spread_us=0.5, runs=7)
    assert "SIGABRT" in reasons[1]
    assert "ValueError" in reasons[2]
    assert "ran longer than 0.5 s" in reasons[3]
    assert "got 'fast' from tests.cost.fake_workers:behave" in reasons[4]
    assert "not a time" in reasons[5]
    rest = Counting()
    model.measure_all(todo, rest)
    assert rest.seen == []  # failures are remembered too, a time-out for this session
