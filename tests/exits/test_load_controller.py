"""Choice of the arrangement by synthetic loads and reported times."""

from __future__ import annotations

import logging
import time

import numpy as np
import pytest
from test_load_table import two_core_problem

from layoutsel.device.core_load import CoreLoad
from layoutsel.device.load_monitor import LoadMonitor
from layoutsel.exits.controller import SAMPLES, PlanController
from layoutsel.exits.load_grid import LoadGrid
from layoutsel.exits.load_table import LoadTable
from layoutsel.exits.loaded_costs import loaded_costs
from layoutsel.exits.table_planning import make_table

IDLE, BUSY = CoreLoad.idle(2), CoreLoad(busy=(1.0, 0.0))


@pytest.fixture(scope="module")
def table() -> LoadTable:
    problem = two_core_problem()
    return make_table(problem, loaded_costs(problem.costs), LoadGrid.of_host(2))


def flat(table: LoadTable, *values_us: float) -> LoadTable:
    """Copy with the same values in all cells; the last arrangements are slow."""
    count = len(table.arrangements)
    row = [*values_us, *[1000.0] * count][:count]
    return table.corrected(IDLE, table.value_us[0]).__class__(
        schema_version=table.schema_version,
        grid=table.grid,
        objective=table.objective,
        arrangements=table.arrangements,
        value_us=(tuple(row),) * table.grid.cells,
        mean_us=(tuple(row),) * table.grid.cells,
        best_us=(min(row),) * table.grid.cells,
        bound_us=(min(row),) * table.grid.cells,
        factors=(1.0,) * count,
    )


class TestHysteresis:
    def test_a_change_takes_three_samples(self, table):
        control = PlanController(table)
        idle, busy = table.chosen[0], table.chosen[table.grid.cell(BUSY)]
        assert idle != busy
        seen = [control.take(BUSY).chosen for _ in range(SAMPLES + 2)]
        assert seen == [idle] * (SAMPLES - 1) + [busy] * 3
        assert control.switches == 1
        assert control.choice.off == table.off[table.grid.cell(BUSY)]

    def test_an_interruption_starts_again(self, table):
        control = PlanController(table)
        for _ in range(50):
            for load in (BUSY, BUSY, IDLE):
                assert control.take(load).chosen == table.chosen[0]
        assert control.switches == 0

    @pytest.mark.parametrize("noise", [0.1, 0.3])
    def test_noise_at_a_border_changes_rarely(self, table, noise):
        """Without hysteresis, about half of the samples would change it."""
        border = table.borders()[0].to_busy
        generator = np.random.default_rng(0)
        control = PlanController(table)
        plain = []
        for _ in range(400):
            load = CoreLoad(busy=(abs(border + noise * generator.standard_normal()), 0.0))
            plain.append(table.chosen[table.grid.cell(load)])
            control.take(load)
        assert control.switches * 4 < np.count_nonzero(np.diff(plain))

    @pytest.mark.parametrize(("second", "switches"), [(96.0, 0), (94.0, 1)])
    def test_gains_of_five_percent(self, table, second, switches):
        made = flat(table, 100.0, second)
        control = PlanController(made)
        control.choice = control.choice._replace(chosen=0)
        for _ in range(10):
            control.take(IDLE)
        assert control.switches == switches


def test_the_trunk_leaves_the_busier_cores(table):
    control = PlanController(table)
    seen = [
        control.take(CoreLoad(busy=busy)).from_last
        for busy in ((0.0, 1.0), (0.5, 0.4), (1.0, 0.5), (0.5, 0.5), (0.4, 0.6), (0.1, 0.4))
    ]
    assert seen == [False, False, True, True, True, False]


class TestCorrection:
    def test_a_slow_arrangement_is_replaced_in_its_cell_alone(self, table):
        control = PlanController(flat(table, 100.0, 110.0))
        for _ in range(40):
            control.report(control.choice, 150.0)
        for _ in range(SAMPLES):
            control.take(IDLE)
        assert control.choice.chosen == 1
        assert control._errors[1:].max() == 0

    def test_equal_errors_of_all_change_nothing_in_the_end(self, table):
        """Each may be tried; the best one is in use most of the time."""
        control = PlanController(flat(table, 100.0, 110.0))
        used = []
        for _ in range(3000):
            choice = control.take(IDLE)
            control.report(choice, 3 * (100.0, 110.0, 1000.0, 1000.0)[choice.chosen])
            used.append(choice.chosen)
        assert np.mean(np.array(used[1000:]) == 0) > 0.95
        assert control.switches < 15

    def test_an_arrangement_that_was_slow_is_tried_again(self, table):
        control = PlanController(flat(table, 100.0, 130.0))
        slow = 100
        used = []
        for number in range(2000):
            choice = control.take(IDLE)
            control.report(choice, (100.0, 130.0)[choice.chosen] * (3 if number < slow else 1))
            if number < slow and choice.chosen == 1:
                slow = number  # the disturbance ends with the first change
            used.append(choice.chosen)
        assert used[slow] == 1
        assert used[-1] == 0

    def test_single_outliers_change_nothing(self, table):
        control = PlanController(flat(table, 100.0, 120.0))
        for number in range(1000):
            choice = control.take(IDLE)
            control.report(choice, 1e6 if number % 100 == 0 else 100.0)
        assert control.choice.chosen == 0

    def test_reports_are_bounded(self, table):
        control = PlanController(table)
        for _ in range(10_000):
            control.report(control.choice, 100.0)
        assert len(control._reports) <= 1024


def test_a_choice_takes_less_than_fifty_microseconds(table):
    with PlanController(table) as control:
        times = []
        for _ in range(5000):
            start_s = time.perf_counter()
            choice = control.choice
            control.report(choice, 100.0)
            times.append(time.perf_counter() - start_s)
    assert np.percentile(times, 99) < 50e-6


def test_unreadable_counters_are_an_idle_machine(table, tmp_path, caplog):
    monitor = LoadMonitor(range(2), proc=tmp_path)
    with (
        caplog.at_level(logging.WARNING),
        PlanController(table, monitor, interval_s=0.001) as control,
    ):
        end_s = time.monotonic() + 0.1
        while time.monotonic() < end_s:
            assert control.choice.cell == 0
            time.sleep(0.01)
    assert caplog.text.count("it counts as idle") == 1


def test_the_thread_sleeps_and_ends(table):
    used_s = time.process_time()
    with PlanController(table, interval_s=0.05) as control:
        time.sleep(0.6)
        assert control._thread.is_alive()
    assert not control._thread.is_alive()
    assert time.process_time() - used_s < 0.3
