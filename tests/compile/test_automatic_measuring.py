"""`--cost auto` measures only while the uncertainty of the predictions is expected to cost much."""

from dataclasses import replace

import pytest

from layoutsel.compile import make_plan
from layoutsel.compile.make_plan import priced_problem
from layoutsel.compile.measuring import cost_model
from layoutsel.compile.offers import Offers
from layoutsel.compile.pricing import priced_by
from layoutsel.compile.session import Session
from layoutsel.core.choices import PREDICTED
from layoutsel.core.workload import Cost
from layoutsel.cost.learned import LearnedCost
from layoutsel.device.outcome import Timing
from layoutsel.device.worker import Worker
from layoutsel.planning.hybrid import Tolerance


@pytest.fixture
def asked(monkeypatch):
    """Candidates that were measured; each answer is a plausible time."""
    payloads = []

    def call(_worker, payload):
        payloads.append(payload)
        return Timing(us=100.0, spread_us=1.0, runs=10)

    monkeypatch.setattr(Worker, "call", call)
    return payloads


def spreads(monkeypatch, factor):
    """Scale the uncertainty of all predictions."""
    predict = LearnedCost.subgraphs

    def scaled(self, questions):
        return [
            Cost.timed(cost.us, cost.us * factor, cost.source) if isinstance(cost, Cost) else cost
            for cost in predict(self, questions)
        ]

    monkeypatch.setattr(LearnedCost, "subgraphs", scaled)


@pytest.fixture(scope="module")
def opened():
    return Session.open("light:squeezenet", threads=2)


@pytest.fixture
def offers(opened, tmp_path):
    """Of a session that knows no measurements."""
    options = replace(opened.options, cache=tmp_path / "m.sqlite")
    return Offers.of(replace(opened, options=options))


@pytest.mark.parametrize("cost", PREDICTED)
def test_certain_predictions_are_not_measured(offers, monkeypatch, asked, cost):
    spreads(monkeypatch, 1e-6)
    priced_problem(offers, cost)
    assert asked == []


@pytest.mark.parametrize("cost", PREDICTED)
def test_uncertain_ones_are_measured_unless_predictions_alone_are_wanted(
    offers, monkeypatch, asked, cost
):
    spreads(monkeypatch, 2.0)
    priced_problem(offers, cost, measure_budget_s=1.0)
    assert bool(asked) == (cost != "learned")


def test_automatic_measuring_tolerates_more(offers, monkeypatch, asked):
    """An expected loss that is not worth measuring automatically is measured on request."""
    spreads(monkeypatch, 0.3)
    monkeypatch.setattr(make_plan, "WORTHWHILE", Tolerance(1.0))
    priced_problem(offers, "auto")
    assert asked == []
    priced_problem(offers, "hybrid", measure_budget_s=1.0)
    assert asked


@pytest.mark.parametrize("best", [1, 3])
def test_only_the_most_promising_candidates_are_profiled(offers, asked, best):
    """The best of each sub-graph by prediction and one other, the same at every call."""
    cold = priced_problem(offers, "learned")
    calls = []
    for _ in range(2):
        asked.clear()
        with cost_model(offers, "measured", best=best) as model:
            known = priced_by(offers, model)
        calls.append({(p["function"], p["decision"]) for p in asked if p["kind"] == "subgraph"})
    # What is implausible, as these times are, is measured again.
    assert calls[1] <= calls[0]
    measured = {
        node.id: {option.decision for option in node.options if option.source == "measured"}
        for node in known.nodes
    }
    for node in cold.nodes:
        ranked = [option.decision for option in sorted(node.options, key=lambda o: o.cost_us)]
        assert len(measured[node.id]) <= best + 1 or len(ranked) <= best + 1
    assert any(measured.values())
