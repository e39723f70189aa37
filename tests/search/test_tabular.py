"""Tables of networks: features by function, equal budgets of all methods, and a surrogate that pays."""

import itertools

import numpy as np
import pytest

from layoutsel.search.pool_search import (
    LIMITED,
    METHODS,
    OURS,
    BudgetUsed,
    Queries,
    neighbours,
    run_search,
)
from layoutsel.search.tabular import NetworkTable, code_of
from layoutsel.search.tabular_bench import constrained_regret, row_of, summaries
from tests.search.tables import small_table
from tvm_passes.errors import LayoutselError

NAME = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|none~1|nor_conv_3x3~2|"


@pytest.fixture(scope="module")
def task():
    return small_table().task("device", "data")


def polynomial(code):
    """Output of a cell as a sum of words of operations, by its definition."""
    letters = {1: "", 2: "a", 3: "b", 4: "p"}
    pairs = dict(zip([(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)], code, strict=True))
    nodes = {0: [""]}
    for j in (1, 2, 3):
        nodes[j] = sorted(
            word + letters[pairs[i, j]] for i in range(j) if pairs[i, j] for word in nodes[i]
        )
    return tuple(nodes[3])


def test_cells_have_equal_paths_if_and_only_if_they_compute_the_same_words():
    codes = np.array(list(itertools.product(range(5), repeat=6)))[::7]
    cells = NetworkTable(codes, {}, {}).cells
    paths = cells.groups[1].values
    words = [polynomial(code) for code in codes]
    seen = {}
    for word, row in zip(words, map(tuple, paths), strict=True):
        assert seen.setdefault(word, row) == row
    assert len(set(seen.values())) == len(seen)
    np.testing.assert_array_equal(cells.is_dead, [not word for word in words])
    assert all(np.isfinite(group.values).all() for group in cells.groups)


def test_architectures_are_read_strictly():
    assert code_of(NAME) == (4, 2, 1, 2, 0, 3)
    with pytest.raises(LayoutselError, match="expected 6 operations of none"):
        code_of("|none~0|")
    with pytest.raises(LayoutselError, match="expected 6 operations"):
        code_of(NAME.replace("none", "conv7"))


def test_tables_are_read_in_percent_and_milliseconds(tmp_path):
    file = tmp_path / "table.npz"
    np.savez(file, architecture=[NAME], data=[73.5], latency_phone=[2.5])
    table = NetworkTable.load(file)
    assert table.accuracies["data"] == pytest.approx([0.735])
    assert table.latencies_us["phone"] == pytest.approx([2500.0])
    with pytest.raises(LayoutselError, match="device 'tv': the table has phone"):
        table.task("tv", "data")
    with pytest.raises(LayoutselError, match="data set 'other': the table has data"):
        table.task("phone", "other")
    np.savez(file, architecture=[NAME], data=[73.5])
    with pytest.raises(LayoutselError, match="no table of networks"):
        NetworkTable.load(file)


def _with(values, number):
    """Copy with another last value."""
    return np.array([*values[:-1], number], dtype=float)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda held: {"architecture": held["architecture"][1:]}, "each combination of operations"),
        (lambda held: {"architecture": held["architecture"][:0]}, "each combination of operations"),
        (lambda held: {"data": held["data"][1:]}, r"data: got an array of float64 \(63,\)"),
        (lambda held: {"data": np.array(["x"] * 64)}, "data: got an array of <U1"),
        (lambda held: {"data": _with(held["data"], np.nan)}, "data: got nan; expected 64 percent"),
        (lambda held: {"data": _with(held["data"], 101)}, "data: got 101; expected 64 percentages"),
        (lambda held: {"latency_tv": _with(held["latency_tv"], 0)}, "latency_tv: got 0; expected"),
        (lambda held: {"latency_tv": _with(held["latency_tv"], -1)}, "latency_tv: got -1"),
        (lambda held: {"latency_tv": _with(held["latency_tv"], np.inf)}, "latency_tv: got inf"),
    ],
)
def test_wrong_tables_are_named(tmp_path, change, told):
    file, names = tmp_path / "table.npz", ("none", "nor_conv_3x3")
    texts = [
        f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"
        for a, b, c, d, e, f in itertools.product(names, repeat=6)
    ]
    random = np.random.default_rng(0)
    held = {
        "architecture": np.array(texts),
        "data": random.uniform(50, 90, 64),
        "latency_tv": random.uniform(1, 9, 64),
    }
    np.savez(file, **held)
    assert NetworkTable.load(file).task("tv", "data").share([]) == 0.0
    np.savez(file, **{**held, **change(held)})
    with pytest.raises(LayoutselError, match=told):
        NetworkTable.load(file)


def test_a_table_without_networks_that_count_is_rejected(tmp_path):
    file = tmp_path / "table.npz"
    np.savez(file, architecture=[NAME], data=[73.5], latency_phone=[2.5])
    with pytest.raises(LayoutselError, match="got no network that is faster"):
        NetworkTable.load(file).task("phone", "data")


def test_shares_and_regrets_are_those_of_the_front(task):
    assert task.share(list(task.front)) == pytest.approx(1.0)
    assert task.share([]) == 0.0
    assert task.regrets(list(task.front), task.limits_us).max() == 0.0
    best = task.front[-1]
    fastest_us = task.us[task.candidates].min()
    regrets = task.regrets([int(best)], [fastest_us, task.us[best]])
    assert regrets[0] > 0.1
    assert regrets[1] == 0.0
    assert not task.table.cells.is_dead[task.candidates].any()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_asks_for_as_many_different_networks(task, method):
    if method in ("NSGA-II", "TPE"):
        pytest.importorskip("optuna")
    known = run_search(METHODS[method], task, 30, seed=1)
    assert len(known) == len(set(known)) == 30
    assert set(known) <= set(task.candidates)
    assert known == run_search(METHODS[method], task, 30, seed=1)
    assert known != run_search(METHODS[method], task, 30, seed=2)


def test_known_networks_are_free_and_others_are_not(task):
    queries = Queries(task, 1)
    first, second = task.candidates[:2]
    assert queries(first) == queries(first) == task.accuracy[first]
    with pytest.raises(BudgetUsed):
        queries(second)


def test_searches_of_a_small_table_end_when_it_is_known():
    small = small_table((1, 3)).task("device", "data")
    for name in (OURS, "random", "local search"):
        assert set(run_search(METHODS[name], small, 100, seed=0)) == set(small.candidates)


def test_neighbours_differ_in_one_operation(task):
    network = int(task.candidates[50])
    found = list(neighbours(task, network))
    assert found
    for one in found:
        assert (task.table.codes[one] != task.table.codes[network]).sum() == 1


def test_the_surrogate_finds_more_than_chance(task):
    rows = [
        row_of(task, method, seed, budget=40) for method in (OURS, "random") for seed in range(4)
    ]
    ours, chance = summaries(rows)
    assert ours.method == OURS
    assert ours.gain is None
    assert ours.worst > chance.median
    assert ours.regret < chance.regret
    assert chance.gain.mean > 0
    assert chance.p_seeds == 2 / 2**4
    assert all(row.curve[-1] == pytest.approx(row.share, abs=1e-5) for row in rows)
    assert all(list(row.curve) == sorted(row.curve) for row in rows)


def test_a_search_for_one_limit_asks_for_networks_within_it(task):
    middle = task.limits_us[4]
    assert constrained_regret(task, 0, middle, budget=40) < 0.01


def test_a_search_within_given_limits_asks_for_nothing_slower_and_lacks_little(task):
    limits = (task.limits_us[2], task.limits_us[5])
    limited = task.table.task("device", "data", limits)
    assert limited.limits_us == limits
    known = run_search(METHODS[LIMITED], limited, 40, seed=0)
    assert task.us[known].max() <= limits[1]
    chance = run_search(METHODS["random"], limited, 40, seed=0)
    assert limited.regrets(known, limits).mean() < limited.regrets(chance, limits).mean()
    with pytest.raises(LayoutselError, match=r"got a limit of 0\.001 ms; expected at least the"):
        task.table.task("device", "data", (1.0,))
