"""A small network from end to end: its parts add up to what was measured, and the store remembers them."""

from __future__ import annotations

import numpy as np
import pytest

import layoutsel
from layoutsel import documents
from layoutsel.compile.session import Session
from layoutsel.cost.residuals import PLAN, SUBGRAPH
from layoutsel.cost.store import Store
from layoutsel.planning.plan import Plan
from layoutsel.runtime.observe import observe
from tests.runtime.test_trace import network
from tvm_passes import onednn

THREADS = 2
INPUTS = [np.ones((1, 32, 14, 14), np.float32)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("store") / "measurements.sqlite"


@pytest.fixture(scope="module")
def compiled(cache):
    return layoutsel.optimize(network(), cost="roofline", threads=THREADS, cache=cache)


@pytest.fixture(scope="module")
def plan(compiled):
    return documents.from_json(Plan, dict(compiled.plan))


def test_the_parts_add_up_to_the_difference(plan):
    residuals = plan.residuals
    assert residuals.measured_us == plan.own_measurement.median_us
    assert residuals.predicted_us == plan.cost_us
    difference = plan.own_measurement.median_us - plan.cost_us
    assert sum(residuals.parts.values()) == pytest.approx(difference, abs=1e-6)
    assert [subgraph.id for subgraph in residuals.subgraphs] == list(plan.decisions)
    assert (
        sum(subgraph.in_plan_us for subgraph in residuals.subgraphs) <= residuals.measured_us + 1e-6
    )


def test_the_store_remembers(plan, cache):
    with Store(Session.open(network(), threads=THREADS).context, cache) as store:
        rows = {(row.kind, row.name): row for row in store.residuals()}
    whole = rows[PLAN, plan.model_name]
    assert whole.model == plan.model_hash
    assert sum(whole.parts.values()) == pytest.approx(whole.in_plan_us - whole.predicted_us)
    for subgraph in plan.residuals.subgraphs:
        row = rows[SUBGRAPH, subgraph.id]
        assert row.key
        assert row.decision == str(plan.decisions[subgraph.id])
        assert (row.predicted_us, row.in_plan_us) == (subgraph.predicted_us, subgraph.in_plan_us)


def test_neighbours_of_a_unit_are_merged():
    if reason := onednn.available():
        pytest.skip(reason)
    pins = ("conv0=onednn:NHWC", "conv1=onednn:NHWC", "conv2=cpu:NCHW")
    model = layoutsel.optimize(
        network(), cost="roofline", pins=pins, threads=THREADS, verify_speed=False
    )
    observed = observe(model, INPUTS)
    ids = [subgraph["id"] for subgraph in model.plan["subgraphs"]]
    assert observed.merged == set(ids[:2])
    assert set(observed.subgraphs) == set(ids)
    assert observed.transforms["NHWC>NCHW"].count == 1
    assert observed.runs >= 5
    assert observed.whole_us > 0
    assert 0 < observed.fit <= 1
    assert "residuals" in model.plan
    assert model.plan["residuals"] is None
