"""Tables of arrangements by load, against all arrangements of every cell."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest
from exit_models import policy_of
from hypothesis import given, settings
from hypothesis import strategies as st
from test_exit_planner import problems, replayed, useful

from layoutsel import documents
from layoutsel.cost.slowdown import SLICE_US
from layoutsel.device.core_load import CoreLoad
from layoutsel.documents import DocumentError
from layoutsel.errors import LayoutselError
from layoutsel.exits.arrangement import Arrangement, ExitCosts
from layoutsel.exits.costs import host_workers
from layoutsel.exits.load_grid import LoadGrid
from layoutsel.exits.load_table import LoadTable, LoadTableError
from layoutsel.exits.loaded_costs import loaded_costs
from layoutsel.exits.patterns import SurePattern
from layoutsel.exits.planner import ExitProblem
from layoutsel.exits.table_planning import _cover, make_table


def two_core_costs(scale: float = 100.0) -> ExitCosts:
    """Network of three exits on a host of two cores, which two threads make 1.4 times as fast."""
    kinds = host_workers(2)
    speed = {"cpu-2": 1.4, "cpu-1": 1.0, "cpu-1b": 1.0}

    def stages(counts: tuple[int, ...]) -> dict[str, tuple[tuple[float, ...], ...]]:
        return {
            name: tuple((scale / of,) * count for count in counts) for name, of in speed.items()
        }

    pairs = [("cpu-1", "cpu-1b"), ("cpu-1b", "cpu-1")]
    return ExitCosts(
        workers=kinds,
        cores=2,
        trunk_us=stages((3, 3, 4)),
        branch_us=stages((2, 2)),
        needs=((), ()),
        request_us=20.0,
        handover_us={f"{a}>{b}": (20.0, 20.0) for a, b in pairs},
        slowdown={f"{a}|{b}": 1.1 for a, b in pairs},
    )


def two_core_problem(**changes) -> ExitProblem:
    return replace(
        ExitProblem(
            exits=("early", "middle", "final"),
            costs=two_core_costs(),
            policy=policy_of(0.5, 0.5),
            patterns=(
                SurePattern(exits=(0, 1), samples=40),
                SurePattern(exits=(1,), samples=20),
                SurePattern(exits=(), samples=40),
            ),
        ),
        **changes,
    )


@pytest.fixture(scope="module")
def table() -> LoadTable:
    problem = two_core_problem()
    return make_table(problem, loaded_costs(problem.costs), LoadGrid.of_host(2))


@settings(max_examples=25, deadline=None)
@given(problem=problems(exits=(2, 3), kinds=(2, 3)), seed=st.integers(0, 9))
def test_every_cell_is_near_the_best_of_all_arrangements(problem, seed):
    """The slow-downs by load are arbitrary; all values are computed again by another simulator."""
    generator = np.random.default_rng(seed)
    grid = LoadGrid(cores=2, busy=(0.0, 1.0, 2.0), streaming=(0.0, 1.0))
    names = [kind.name for kind in problem.costs.workers]
    factors = {
        (grid.load(cell), name): float(generator.integers(1, 5))
        for cell in range(grid.cells)
        for name in names
    }

    def costs_at(load: CoreLoad) -> ExitCosts:
        def slowed(times):
            return {
                name: tuple(tuple(us * factors[load, name] for us in stage) for stage in stages)
                for name, stages in times.items()
            }

        costs = problem.costs
        return replace(costs, trunk_us=slowed(costs.trunk_us), branch_us=slowed(costs.branch_us))

    made = make_table(problem, costs_at, grid, time_limit_s=60)
    for cell in range(grid.cells):
        here = replace(problem, costs=costs_at(grid.load(cell)))
        values = {one: replayed(here, one) for one in useful(here)}
        alone = {one: value for one, value in values.items() if not any(one.branches)}
        best = min(values.values())
        assert made.best_us[cell] == pytest.approx(best)
        chosen = values[made.arrangements[made.chosen[cell]]]
        assert chosen == pytest.approx(made.value_us[cell][made.chosen[cell]])
        assert chosen <= 1.02 * best + 1e-6
        assert made.regret[cell] == pytest.approx(max(chosen / best - 1, 0), abs=1e-9)
        off = made.arrangements[made.off[cell]]
        assert alone[off] <= 1.02 * min(alone.values()) + 1e-6
        assert chosen <= alone[off]


@settings(max_examples=50, deadline=None)
@given(
    regret=st.lists(
        st.lists(st.sampled_from([0.0, 0.01, 0.05, 0.5]), min_size=5, max_size=5),
        min_size=1,
        max_size=6,
    ),
    best=st.lists(st.integers(0, 4), min_size=6, max_size=6),
)
def test_fewest_arrangements(regret, best):
    values = np.array(regret)
    values[np.arange(len(values)), best[: len(values)]] = 0

    def covers(columns):
        return (values[:, list(columns)] <= 0.02).any(axis=1).all()

    found = _cover(values, 0.02)
    sets = [
        columns
        for count in range(1, 6)
        for columns in itertools.combinations(range(5), count)
        if covers(columns)
    ]
    fewest = [columns for columns in sets if len(columns) == len(sets[0])]
    assert covers(found)
    assert len(found) == len(sets[0])
    least = min(values[:, list(columns)].mean(axis=0).sum() for columns in fewest)
    assert values[:, found].mean(axis=0).sum() == pytest.approx(least)


class TestTwoCores:
    def test_loads_change_the_arrangement(self, table):
        idle, one_busy, full = (table.arrangements[table.chosen[n]].trunk for n in (0, 2, 4))
        assert idle == "cpu-2"
        assert one_busy == full == "cpu-1"  # two threads wait for each other in both
        assert table.regret.max() <= 0.02
        assert all(one <= best for one, best in zip(table.bound_us, table.best_us, strict=True))

    def test_borders_hold_the_grid(self, table):
        found = table.borders()
        assert found[0].from_busy == 0
        assert found[-1].to_busy == 2
        for before, after in itertools.pairwise(found):
            assert before.to_busy == after.from_busy
            assert before.chosen != after.chosen
        for one in found:
            middle = (one.from_busy + one.to_busy) / 2
            load = CoreLoad(busy=(max(middle - 1, 0), min(middle, 1)))
            assert table.chosen[table.grid.cell(load)] == one.chosen

    def test_few_arrangements_if_asked(self):
        problem = two_core_problem()
        costs_at = loaded_costs(problem.costs)
        made = make_table(problem, costs_at, LoadGrid.of_host(2), most=1, tolerance=0.001)
        # One arrangement, one of those on one worker, and the trunk alone.
        on = [one for one in made.arrangements if any(one.branches)]
        assert len(on) <= 2
        assert sum(one.is_beside for one in on) <= 1
        assert made.regret.max() >= 0

    def test_one_worker_is_left_if_several_are_slower_than_predicted(self):
        problem = two_core_problem()

        def costs_at(load: CoreLoad) -> ExitCosts:  # two threads are slow; a second worker is free
            costs = replace(problem.costs, handover_us={}, slowdown={})
            slow = {"cpu-2": tuple(tuple(9 * us for us in of) for of in costs.trunk_us["cpu-2"])}
            return replace(costs, trunk_us={**costs.trunk_us, **slow})

        made = make_table(problem, costs_at, LoadGrid.of_host(2))
        assert made.arrangements[made.chosen[0]].is_beside
        measured = [
            us * (20 if one.is_beside else 1)
            for us, one in zip(made.value_us[0], made.arrangements, strict=True)
        ]
        corrected = made.corrected(CoreLoad.idle(2), measured)
        left = made.arrangements[corrected.chosen[0]]
        assert set(left.branches) == {left.trunk}
        pinned = make_table(problem, costs_at, LoadGrid.of_host(2), pins=["early=off"])
        assert not any(one.branches[0] for one in pinned.arrangements)

    def test_a_measurement_corrects_all_cells(self, table):
        chosen = table.chosen[0]
        measured = [4.0 if place == chosen else 1.0 for place in range(len(table.arrangements))]
        values = [us * factor for us, factor in zip(table.value_us[0], measured, strict=True)]
        corrected = table.corrected(CoreLoad.idle(2), values)
        np.testing.assert_allclose(corrected.factors, measured)
        assert chosen not in corrected.chosen
        assert corrected.value_us == table.value_us

    def test_saved_and_read(self, table):
        document = documents.parse_json(documents.as_text(table), "net.so")
        assert LoadTable.read(document, two_core_costs()) == table
        document["arrangements"][0]["trunk"] = "gpu"
        with pytest.raises(
            DocumentError, match=r"net.so: at \$.arrangements\[0\].trunk: got 'gpu'"
        ):
            LoadTable.read(document, two_core_costs(), file="net.so")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("best_us", [1.0]),
            ("factors", []),
            ("factors", [0.0]),
            ("value_us", [[1.0]]),
            ("arrangements", [{"trunk": "cpu-1", "branches": ["cpu-1", "cpu-1"]}]),
        ],
    )
    def test_inconsistent_tables(self, table, name, value):
        document = documents.to_json(table) | {name: value}
        with pytest.raises(LoadTableError, match=r"net.so: table of loads: got .*expected"):
            LoadTable.read(document, two_core_costs(), file="net.so")

    def test_is_made_in_two_seconds(self):
        """Six exits on sixteen cores: 17 cells."""
        problem = two_core_problem()
        costs = problem.costs
        kinds = host_workers(16)
        wide = replace(
            costs,
            workers=kinds,
            cores=16,
            trunk_us={kind.name: ((100.0 / kind.threads**0.5,) * 5,) * 6 for kind in kinds},
            branch_us={kind.name: ((60.0 / kind.threads**0.5,) * 3,) * 5 for kind in kinds},
            needs=((),) * 5,
            handover_us={},
            slowdown={},
        )
        large = replace(
            problem,
            exits=tuple(f"e{n}" for n in range(6)),
            costs=wide,
            policy=policy_of(*[0.5] * 5),
            patterns=tuple(
                SurePattern(exits=tuple(range(first, 5)), samples=10 + first) for first in range(6)
            ),
        )
        start_s = time.process_time()
        made = make_table(large, loaded_costs(wide), LoadGrid.of_host(16))
        assert time.process_time() - start_s < 4  # twice the limit, for slow machines
        assert made.grid.cells == 17


def test_cells():
    grid = LoadGrid.of_host(2, (0.0, 1.0))
    assert grid.busy == (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
    assert [grid.cell(grid.load(cell)) for cell in range(grid.cells)] == list(range(18))
    assert grid.load(6) == CoreLoad(busy=(0.5, 1.0), streaming=0.0)
    assert grid.cell(CoreLoad(busy=(0.0, 3.0), streaming=0.9)) == 13  # three processes on one core
    assert LoadGrid.of_host(64).cells == 17


@pytest.mark.parametrize(
    "change", [{"busy": ()}, {"busy": (1.0, 2.0)}, {"busy": (0.0, 3.0)}, {"streaming": (1.0, 0.5)}]
)
def test_impossible_grids(change):
    with pytest.raises(LayoutselError, match="grid of loads: got"):
        LoadGrid(**({"cores": 2, "busy": (0.0, 1.0)} | change))


def test_costs_grow_with_the_load():
    costs = two_core_costs()
    at = loaded_costs(costs)
    assert at(CoreLoad.idle(2)) == replace(costs, wait_us=SLICE_US)
    one = at(CoreLoad(busy=(1.0, 0.0)))
    # The first worker of one core has the free one; the second, and two threads, meet the load.
    assert one.trunk_us["cpu-1"] == costs.trunk_us["cpu-1"]
    # Two threads get less than a fair share of the busy core, and have its pace.
    assert one.trunk_us["cpu-2"][0][0] == pytest.approx(
        2.7 * costs.trunk_us["cpu-2"][0][0], rel=0.2
    )
    assert one.trunk_us["cpu-1b"][0][0] == pytest.approx(2 * costs.trunk_us["cpu-1"][0][0], rel=0.2)
    assert one.slowdown == costs.slowdown
    # Both wait for their core at least half of the time.
    assert one.waiting == {
        "cpu-1b": pytest.approx(0.5, abs=0.1),
        "cpu-2": pytest.approx(0.6, abs=0.1),
    }
    # Branches on that core run, or not at all: the trunk's worker runs them in sequence then.
    assert one.late == {"cpu-1b": one.waiting["cpu-1b"]}
    assert one.branch_us["cpu-1b"] == costs.branch_us["cpu-1b"]
    # In order, a request waits for them.
    ordered = loaded_costs(costs, "ordered")(CoreLoad(busy=(1.0, 0.0)))
    assert not ordered.late
    assert ordered.branch_us["cpu-1b"][0][0] == pytest.approx(
        2 * costs.branch_us["cpu-1b"][0][0], rel=0.2
    )
    both = at(CoreLoad(busy=(1.0, 1.0)))
    assert both.request_us == pytest.approx(2 * costs.request_us, rel=0.3)
    off = Arrangement(trunk="cpu-1", branches=(None, None))
    table = make_table(two_core_problem(), at, LoadGrid.of_host(2))
    assert off in table.arrangements


def test_two_workers_of_many_cores():
    """The smaller one has the cores that the larger one leaves, while that computes."""
    costs = replace(
        two_core_costs(), workers=(*host_workers(3)[:-1],), cores=3, slowdown={}, handover_us={}
    )
    for times in (costs.trunk_us, costs.branch_us):
        assert isinstance(times, dict)
        times["cpu-3"] = times["cpu-1"]
        del times["cpu-1b"]
    loaded = loaded_costs(costs)(CoreLoad(busy=(0.0, 0.5, 1.0)))
    assert loaded.trunk_us["cpu-2"][0][0] == pytest.approx(
        2 * costs.trunk_us["cpu-2"][0][0], rel=0.2
    )
    assert loaded.slowdown == {"cpu-1|cpu-2": pytest.approx(2.0, rel=0.2)}
