"""Residuals in the measurement store: kept for their context, no samples."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from layoutsel.cost.logs import read_store
from layoutsel.cost.residuals import PLAN, SUBGRAPH, ResidualRow
from layoutsel.cost.store import Context, Store, Timing
from tvm_passes.decision import Decision

CONTEXT = Context(machine="m", versions={"tvm": "0.27"}, threads=2)
ROWS = (
    ResidualRow(
        kind=PLAN,
        model="abc",
        name="net",
        predicted_us=10.0,
        in_plan_us=12.0,
        parts={"sub-graphs": 1.5, "hand-overs": 0.5},
    ),
    ResidualRow(
        kind=SUBGRAPH,
        model="abc",
        name="s0",
        key="h",
        decision="onednn:NHWC",
        predicted_us=9.0,
        spread_us=1.0,
        source="learned",
        in_plan_us=10.5,
        in_plan_spread_us=0.1,
        merged=True,
    ),
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "measurements.sqlite"


def without_date(rows):
    assert all(row.date for row in rows)
    return [replace(row, date="") for row in rows]


def test_rows_come_back_in_their_context(path):
    with Store(CONTEXT, path) as store:
        for row in ROWS:
            store.put_residual(row)
        assert without_date(store.residuals()) == list(ROWS)
        store.put_residual(replace(ROWS[1], in_plan_us=11.0))
        assert [row.in_plan_us for row in store.residuals()] == [12.0, 11.0]
    with Store(replace(CONTEXT, threads=1), path) as store:
        assert store.residuals() == ()


def test_a_store_of_before_gets_the_table(path):
    with Store(CONTEXT, path) as store:
        store.put("h", Decision(unit="cpu"), Timing(us=1.0, spread_us=0.0, runs=3))
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE residual")
    connection.close()
    with Store(CONTEXT, path) as store:
        store.put_residual(ROWS[0])
        assert store.count() == 1


def test_residuals_are_no_samples(path):
    with Store(CONTEXT, path) as store:
        for row in ROWS:
            store.put_residual(row)
    dataset, skipped = read_store(path)
    assert (dataset.samples, dataset.boundaries, skipped) == ((), (), ())


def test_stale_measurements_are_announced_once(path, caplog):
    with Store(CONTEXT, path) as store:
        store.put("h", Decision(unit="cpu"), Timing(us=1.0, spread_us=0.0, runs=3))
    Store(replace(CONTEXT, versions={"tvm": "0.28"}), path, announce=False).close()
    assert not caplog.records
