"""From a plan to what is handed over: inexact plans give way, and a budget of error is kept by what is measured."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from tiers import tiered

from layoutsel import documents
from layoutsel.compile.build_best import finish
from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.core.precision import precision_mode
from layoutsel.device.checks import VerificationError
from layoutsel.planning.plan import Plan
from tests.units.test_offered_precisions import SHAPE, network
from tvm_passes.cpu.host import has_bf16, host_target

pytestmark = pytest.mark.skipif(not has_bf16(host_target()), reason="the CPU has no AVX512_BF16")

PRICES = {"f32": 100.0, "split-bf16": 30.0, "bf16": 10.0}


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> Session:
    cache = tmp_path_factory.mktemp("cache") / "m.sqlite"
    return Session.open(network(), units=("cpu",), threads=1, precision="auto", cache=cache)


def with_budget(session: Session, mode: str, budget: float | None = None) -> Session:
    return replace(session, precision=precision_mode(mode, budget))


def priced_by_precision(session: Session):
    """The planning problem, as if time depended on precision alone."""
    problem = priced_problem(Offers.of(session), "roofline")
    nodes = tuple(
        replace(
            node,
            options=tuple(
                replace(option, cost_us=PRICES[option.decision.precision])
                for option in node.options
            ),
        )
        for node in problem.nodes
    )
    tensors = tuple(
        replace(tensor, transform_us=dict.fromkeys(tensor.transform_us, 0.0))
        for tensor in problem.tensors
    )
    return replace(problem, nodes=nodes, tensors=tensors)


def finished(session: Session, **options):
    problem = priced_by_precision(session)
    model = finish(session, best_plan(session, problem), problem, **options)
    return model, documents.from_json(Plan, dict(model.plan), file="plan")


def worst(model) -> float:
    return max(check["rel_l2_err"] for check in model.checks)


def counts(plan: Plan) -> set[str]:
    return {subgraph.decision.precision for subgraph in plan.subgraphs}


@pytest.mark.parametrize("race", [False, True])
def test_the_fastest_plan_within_the_budget_is_kept(opened, race):
    model, plan = finished(with_budget(opened, "auto", 3e-2), verify_speed=race)
    assert worst(model) <= 3e-2
    assert all(check["tolerance"] == 3e-2 for check in model.checks)
    assert plan.max_rel_error == 3e-2
    (chosen,) = (point for point in plan.trade_off if point.chosen)
    assert chosen.rel_l2_err == pytest.approx(worst(model))
    assert (chosen.measured_us is not None) == race
    if not race:
        assert worst(model) > 1e-4
        assert "bf16" in counts(plan)
        assert chosen == plan.trade_off[0]
        assert plan.trade_off[-1].rel_l2_err is None


def test_plans_outside_of_the_budget_give_way(opened):
    model, plan = finished(with_budget(opened, "auto", 1e-4), verify_speed=False)
    assert worst(model) <= 1e-4
    assert counts(plan) >= {"split-bf16"}
    position = [point.chosen for point in plan.trade_off].index(True)
    assert position > 0
    assert all(point.rel_l2_err > 1e-4 for point in plan.trade_off[:position])
    errors = [point.error for point in plan.trade_off]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("race", tiered([False, True], (False,)))
def test_where_no_plan_is_within_the_f32_plan_is_kept_and_said_so(opened, caplog, race):
    with caplog.at_level(logging.WARNING):
        model, plan = finished(with_budget(opened, "auto", 1e-12), verify_speed=race)
    assert counts(plan) == {"f32"}
    assert "no plan's error is within 1.0e-12" in caplog.text
    assert 1e-12 < worst(model) <= 1e-5
    (chosen,) = (point for point in plan.trade_off if point.chosen)
    assert set(chosen.precisions) == {"f32"}


@pytest.mark.parametrize("race", tiered([False, True], (False,)))
def test_an_inexact_plan_gives_way_to_the_next(opened, caplog, race):
    strict = with_budget(opened, "bf16")
    strict = replace(strict, precision=replace(strict.precision, tolerance=1e-5))
    with caplog.at_level(logging.WARNING):
        model, plan = finished(strict, verify_speed=race)
    assert counts(plan) == {"f32"}
    assert worst(model) <= 1e-5
    assert "is not exact enough" in caplog.text or race


def test_pinned_to_what_is_too_inexact_is_an_error(opened):
    session = with_budget(opened, "bf16")
    strict = replace(session, precision=replace(session.precision, tolerance=1e-5))
    problem = priced_by_precision(strict).restrict(
        lambda node, option: (
            option.decision.precision == "bf16" or "nn.max_pool2d" not in node.operators
        )
    )
    with pytest.raises(VerificationError, match="Try a more exact --precision"):
        finish(strict, best_plan(strict, problem), problem, verify_speed=False)


def test_unverified_is_unverified(opened):
    model, plan = finished(with_budget(opened, "bf16"), verify=False, verify_speed=False)
    assert not model.checks
    assert "bf16" in counts(plan)


def test_errors_are_those_of_the_worst_sample(opened):
    generator = np.random.default_rng(1)
    samples = tuple([generator.standard_normal(SHAPE).astype(np.float32)] for _ in range(3))
    session = with_budget(opened, "bf16")
    model, _ = finished(replace(session, samples=samples), verify_speed=False)
    alone = [
        worst(finished(replace(session, samples=(one,)), verify_speed=False)[0]) for one in samples
    ]
    assert worst(model) == pytest.approx(max(alone))
    assert {check["samples"] for check in model.checks} == {3}
