"""Divisions into one part per machine, against enumeration of all of them and CP-SAT."""

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import examples, tiered

from layoutsel.planning.contiguous import best_contiguous
from layoutsel.planning.contraction import contracted
from layoutsel.planning.division import (
    Division,
    DivisionProblem,
    SentTensor,
    is_contiguous,
    loads_of,
    merged,
    period_us,
)
from layoutsel.planning.division_search import improved
from layoutsel.planning.ideals import all_ideals, some_ideals
from layoutsel.planning.part_bound import best_part_bound, part_bound
from layoutsel.planning.parts import PartTable


def random_division(
    rng: np.random.Generator,
    size: int,
    counts: tuple[int, ...],
    *,
    limit: float = np.inf,
    idle: float = 0.0,
) -> DivisionProblem:
    """A random network; a share of about `idle` of its sub-graphs takes neither time nor memory."""
    classes = len(counts)
    tensors = []
    for producer in range(size - 1):
        readers = [c for c in range(producer + 1, min(size, producer + 4)) if rng.random() < 0.5]
        if readers:
            us = rng.integers(0, 8)
            tensors.append(
                SentTensor(
                    producer=producer,
                    consumers=tuple(readers),
                    send_us=us * rng.integers(0, 3, classes).astype(float),
                    receive_us=us * np.ones(classes),
                )
            )
    compute = rng.integers(0, 20, (size, 1)) * rng.integers(1, 4, (1, classes))
    if idle:
        compute *= rng.random((size, 1)) >= idle
    held = rng.integers(0, 5, size) * (compute[:, 0] > 0)
    return DivisionProblem(
        compute_us=compute.astype(float),
        tensors=tuple(tensors),
        counts=counts,
        bytes=held.astype(float),
        limits=(limit,) * classes,
    )


@st.composite
def divisions(draw: st.DrawFn, most: int = 5) -> DivisionProblem:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    counts = draw(st.sampled_from([(2,), (3,), (1, 1), (2, 1)]))
    limit = draw(st.sampled_from([np.inf, 8.0]))
    idle = draw(st.sampled_from([0.0, 0.3]))
    return random_division(rng, draw(st.integers(1, most)), counts, limit=limit, idle=idle)


def least_period(problem: DivisionProblem, *, contiguous: bool) -> float:
    """Period of the best division, by enumeration."""
    machines = problem.machines
    best = np.inf
    for part_of in itertools.product(range(len(machines)), repeat=problem.size):
        if not contiguous or is_contiguous(problem, part_of):
            division = Division(part_of=part_of, classes=machines)
            best = min(best, period_us(problem, division))
    return float(best)


@settings(max_examples=examples(60), deadline=None)
@given(divisions())
def test_the_best_contiguous_division(problem):
    expected = least_period(problem, contiguous=True)
    found = best_contiguous(problem)
    assert found.exact
    assert found.period_us == pytest.approx(expected)
    if found.division is not None:
        assert is_contiguous(problem, found.division.part_of)
        assert period_us(problem, found.division) == pytest.approx(found.period_us)


@settings(max_examples=examples(60), deadline=None)
@given(divisions(), st.booleans(), st.integers(0, 2**32))
def test_any_weights_bound_the_period(problem, contiguous, seed):
    best = least_period(problem, contiguous=contiguous)
    rng = np.random.default_rng(seed)
    for weights in (None, rng.random(problem.size), rng.integers(0, 2, problem.size)):
        bound = part_bound(problem, contiguous=contiguous, weights=weights)
        assert bound <= best * (1 + 1e-9)


@settings(max_examples=examples(40), deadline=None)
@given(divisions(), st.booleans(), st.integers(0, 2**32))
def test_the_heaviest_part_of_limited_load(problem, contiguous, seed):
    """Against all sets of sub-graphs; those of contiguous divisions have no way out and back."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 6, problem.size).tolist()
    share = int(rng.integers(1, max(sum(weights), 1) + 1))
    table = PartTable(
        problem,
        weights,
        share,
        0,
        contiguous=contiguous,
        most_us=np.inf,
        most_states=10**6,
        deadline=np.inf,
    )
    loads = {}
    for inside in itertools.product((0, 1), repeat=problem.size):
        if not contiguous or is_contiguous(problem, split(problem, inside)):
            both = Division(part_of=inside, classes=(0, 0))
            loads[inside] = float(loads_of(problem, both)[1])
    for least in range(share + 1):
        heavy = [us for one, us in loads.items() if np.dot(one, weights) >= least]
        assert table.least_us[least] == pytest.approx(min(heavy, default=np.inf))
    limit = sorted(loads.values())[len(loads) // 2]
    found = tuple(table.heaviest(limit).astype(int).tolist())
    assert loads[found] <= limit + 1e-9
    most = max(np.dot(one, weights) for one, us in loads.items() if us <= limit + 1e-12)
    assert min(np.dot(found, weights), share) == min(most, share)


def split(problem: DivisionProblem, inside: tuple[int, ...]) -> list[int]:
    """The sides of a part: what comes before and after it, and all else with what comes before."""
    after: set[int] = set()
    for node in range(problem.size):
        if not inside[node] and any(p in after or inside[p] for p in problem.predecessors[node]):
            after.add(node)
    return [1 if part else 2 * (node in after) for node, part in enumerate(inside)]


@settings(max_examples=examples(30), deadline=None)
@given(divisions(), st.booleans())
def test_the_best_weights_bound_the_period(problem, contiguous):
    best = least_period(problem, contiguous=contiguous)
    limit = best if np.isfinite(best) else 1e6
    found = best_part_bound(
        problem, contiguous=contiguous, most_us=limit, deadline=np.inf, rounds=10
    )
    first = part_bound(problem, contiguous=contiguous, most_us=limit)
    assert first * (1 - 1e-9) <= found <= best * (1 + 1e-9)


@settings(max_examples=examples(40), deadline=None)
@given(divisions())
def test_contraction_loses_nothing(problem):
    small, groups = contracted(problem)
    assert small.compute_us.sum() == pytest.approx(problem.compute_us.sum())
    for contiguous in (True, False):
        assert least_period(small, contiguous=contiguous) == pytest.approx(
            least_period(problem, contiguous=contiguous)
        )
    again = merged(problem, groups)
    assert (again.compute_us == small.compute_us).all()


def test_a_free_subgraph_stays_apart_from_a_producer_that_sends_elsewhere():
    """The first sub-graph sends one tensor; with the free one, it would send two."""
    times = [np.array([2.0]), np.array([1.0])]
    problem = DivisionProblem(
        compute_us=np.array([[500.0], [0.0], [300.0]]),
        tensors=(
            SentTensor(producer=0, consumers=(1, 2), send_us=times[0], receive_us=times[0]),
            SentTensor(producer=1, consumers=(2,), send_us=times[1], receive_us=times[1]),
        ),
        counts=(2,),
        bytes=np.array([4.0, 0.0, 4.0]),
        limits=(5.0,),
    )
    small, _ = contracted(problem)
    for contiguous in (True, False):
        assert least_period(small, contiguous=contiguous) == 502.0


@settings(max_examples=examples(30), deadline=None)
@given(divisions(), st.integers(0, 100))
def test_ideals_hold_all_that_their_members_read(problem, seed):
    every = all_ideals(problem, 1000)
    some = some_ideals(problem, 20, seed=seed)
    known = {tuple(row) for row in every.tolist()}
    assert len(known) == len(every)
    assert {tuple(row) for row in some.tolist()} <= known
    for rows in (every, some):
        assert not rows[0].any()
        assert rows[-1].all()
        for tensor in problem.tensors:
            for consumer in tensor.consumers:
                assert (rows[:, tensor.producer] | ~rows[:, consumer]).all()
    assert all_ideals(problem, len(every) - 1) is None


@settings(max_examples=examples(30), deadline=None)
@given(divisions())
def test_teams_are_never_worse_and_count_their_machines(problem):
    alone = best_contiguous(problem)
    found = best_contiguous(problem, teams=True)
    assert found.period_us <= alone.period_us * (1 + 1e-12)
    if found.division is not None:
        used = [0] * problem.classes
        for c, team in zip(found.division.classes, found.division.teams, strict=True):
            used[c] += team
        assert all(u <= n for u, n in zip(used, problem.counts, strict=True))
        assert period_us(problem, found.division) == pytest.approx(found.period_us)
        assert loads_of(problem, found.division).max() == pytest.approx(found.period_us)


@settings(max_examples=examples(20), deadline=None)
@given(divisions())
def test_more_machines_are_never_worse(problem):
    more = replace(problem, counts=tuple(count + 1 for count in problem.counts))
    assert best_contiguous(more).period_us <= best_contiguous(problem).period_us * (1 + 1e-12)


def test_a_few_orders_of_a_wide_network_leave_an_answer():
    rng = np.random.default_rng(3)
    problem = random_division(rng, 60, (4,))
    found = best_contiguous(problem, most_ideals=100)
    assert not found.exact
    assert found.division is not None
    assert is_contiguous(problem, found.division.part_of)
    assert period_us(problem, found.division) == pytest.approx(found.period_us)
    bound = part_bound(problem, contiguous=True, most_us=found.period_us)
    assert 0 < bound <= found.period_us


@settings(max_examples=examples(30), deadline=None)
@given(divisions(), st.integers(0, 100))
def test_local_search_is_never_worse_and_never_better_than_the_best(problem, seed):
    start = best_contiguous(problem)
    if start.division is None:
        return
    found = improved(problem, start.division, deadline=time.monotonic() + 0.2, seed=seed)
    period = period_us(problem, found)
    assert least_period(problem, contiguous=False) * (1 - 1e-9) <= period
    assert period <= start.period_us * (1 + 1e-9)


def by_cp_sat(problem: DivisionProblem) -> tuple[float, float]:
    """Period of the best division that CP-SAT finds, and its bound; times are whole numbers."""
    cp_model = pytest.importorskip("ortools.sat.python.cp_model", reason="needs the extra 'dev'")
    model = cp_model.CpModel()
    machines = range(len(problem.machines))
    on = [[model.NewBoolVar("") for _ in machines] for _ in range(problem.size)]
    terms = [[] for _ in machines]
    for node, row in enumerate(on):
        model.AddExactlyOne(row)
        for m, c in enumerate(problem.machines):
            terms[m].append(int(problem.compute_us[node, c]) * row[m])
    for tensor in problem.tensors:
        for m, c in enumerate(problem.machines):
            made = on[tensor.producer][m]
            received, sent = model.NewBoolVar(""), model.NewBoolVar("")
            for consumer in tensor.consumers:
                model.Add(received >= on[consumer][m] - made)
                model.Add(sent >= made - on[consumer][m])
            terms[m] += [int(tensor.receive_us[c]) * received, int(tensor.send_us[c]) * sent]
    period = model.NewIntVar(0, 10**7, "period")
    for m, c in enumerate(problem.machines):
        model.Add(sum(terms[m]) <= period)
        if np.isfinite(problem.limits[c]):
            held = [int(b) * row[m] for b, row in zip(problem.bytes, on, strict=True)]
            model.Add(sum(held) <= int(problem.limits[c]))
    model.Minimize(period)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.max_time_in_seconds = 10.0
    solver.Solve(model)
    return float(solver.ObjectiveValue()), float(solver.BestObjectiveBound())


@pytest.mark.parametrize("seed", tiered(range(12), range(2)))
def test_divisions_of_larger_networks_against_cp_sat(seed):
    rng = np.random.default_rng(seed)
    counts = ((3,), (4,), (2, 1))[seed % 3]
    problem = random_division(rng, int(rng.integers(15, 40)), counts)
    value, proof = by_cp_sat(problem)
    contiguous = best_contiguous(problem)
    found = improved(problem, contiguous.division, deadline=time.monotonic() + 2.0, seed=seed)
    period = period_us(problem, found)
    assert period >= proof - 1e-6
    assert period <= 1.05 * value
    deadline = time.monotonic() + 5.0
    bound = best_part_bound(problem, contiguous=False, most_us=period, deadline=deadline)
    assert bound <= value + 1e-6
    if contiguous.exact:
        deadline = time.monotonic() + 5.0
        least = best_part_bound(
            problem, contiguous=True, most_us=contiguous.period_us, deadline=deadline
        )
        assert least <= contiguous.period_us + 1e-6
