"""Searches among known networks with few accuracies: by the surrogate, and others to compare with.

All searches know the times of all networks, and which networks cannot count. Each one asks for the
accuracies of equally many different networks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from layoutsel.search.acquisition import Staircase, expected_gain, expected_improvement
from layoutsel.search.blas_threads import one_blas_thread
from layoutsel.search.dominance import non_dominated
from layoutsel.search.surrogate import FeatureGroup, GaussianProcess, distances, to_value
from layoutsel.search.tabular import TableTask

if TYPE_CHECKING:
    import optuna

FIRST = 12
"""Number of networks before the first fit: one at random of each of as many ranges of times."""
_TUNED_EVERY = 4
"""Number of queries between two choices of the surrogate's parameters."""


class BudgetUsed(Exception):
    """A query beyond the budget."""


class Queries:
    """Accuracies that a search has asked for.

    Parameters
    ----------
    task
        Networks.
    budget
        Number of different networks that may be asked for.
    """

    def __init__(self, task: TableTask, budget: int) -> None:
        self.task, self.budget = task, budget
        self.known: list[int] = []
        """Networks in the order of their queries."""

    def __call__(self, network: int) -> float:
        """Accuracy of a network; free if it is known.

        Raises
        ------
        BudgetUsed
            If the budget is used.
        """
        if network not in self.known:
            if len(self.known) >= self.budget:
                raise BudgetUsed
            self.known.append(network)
        return float(self.task.accuracy[network])


Search = Callable[[Queries, int], None]
"""Function of (queries, seed) that asks until :class:`BudgetUsed`, or until it gives up."""


def surrogate_search(
    queries: Queries,
    seed: int,
    *,
    limits_us: Sequence[float] = (),
    groups: Sequence[FeatureGroup] | None = None,
) -> None:
    """Ask for the network with the largest expected gain by the surrogate, again and again.

    Parameters
    ----------
    queries
        Accuracies.
    seed
        Seed of the first networks.
    limits_us
        Limits of time, to search for the most accurate network within each; none for the front.
    groups
        Features of the surrogate; by default those of the task.
    """
    task, random = queries.task, np.random.default_rng(seed)
    pool = task.candidates
    if len(limits_us):
        pool = pool[task.us[pool] <= max(limits_us)]
    us = task.us[pool]
    keeps = us <= np.reshape(limits_us, (-1, 1))
    features = [group[pool] for group in (groups or task.features)]
    known: list[int] = []
    rows: list[np.ndarray] = []

    def ask(position: int) -> None:
        queries(int(pool[position]))
        known.append(position)
        one = slice(position, position + 1)
        rows.append(distances([group[one] for group in features], features))

    for some in np.array_split(np.argsort(us, kind="stable"), min(FIRST, len(pool))):
        ask(int(random.choice(some)))
    process = GaussianProcess(len(features))
    while len(known) < len(pool):
        across = np.concatenate(rows, axis=1)
        within, accuracy = across[:, :, known], task.accuracy[pool[known]]
        values = to_value(accuracy)
        if (len(known) - FIRST) % _TUNED_EVERY == 0:
            process.tune(within, values)
        process.condition(within, values)
        mean, deviation = process.predict(across)
        if len(limits_us):
            best = np.where(keeps[:, known], accuracy, task.reference[1]).max(axis=1)
            gain = expected_improvement(best, keeps, mean, deviation)
        else:
            stairs = Staircase(us[known], accuracy, task.reference)
            gain = expected_gain(stairs, us, mean, deviation)
        gain[known] = -1.0
        ask(int(np.argmax(gain)))


def limited_search(queries: Queries, seed: int) -> None:
    """Ask by the surrogate for the most accurate networks within all limits of the task."""
    surrogate_search(queries, seed, limits_us=queries.task.limits_us)


def one_hot_search(queries: Queries, seed: int) -> None:
    """Ask by a surrogate that knows the six operations of a cell alone."""
    codes = queries.task.table.codes
    groups = [
        FeatureGroup(name=f"pair {pair}", values=codes[:, [pair]], is_category=True)
        for pair in range(codes.shape[1])
    ]
    surrogate_search(queries, seed, groups=groups)


def random_search(queries: Queries, seed: int) -> None:
    """Ask for networks at random."""
    for network in np.random.default_rng(seed).permutation(queries.task.candidates):
        queries(int(network))


def local_search(queries: Queries, seed: int) -> None:
    """Ask for neighbours of non-dominated networks, with one operation changed.

    A tenth of the budget goes to networks at random. When all neighbours are known, one at random
    is asked for again (Pareto local search; Paquete, Chiarandini and Stützle, 2004).
    """
    task, random = queries.task, np.random.default_rng(seed)
    drawn = iter(random.permutation(task.candidates))
    for _ in range(max(queries.budget // 10, 1)):
        queries(int(next(drawn)))
    while True:
        known = np.array(queries.known)
        front = known[
            non_dominated(task.us[known], task.accuracy[known], np.zeros((len(known), 0)))
        ]
        fresh = [one for network in front for one in neighbours(task, network) if one not in known]
        queries(int(random.choice(fresh)) if fresh else int(next(drawn)))


def neighbours(task: TableTask, network: int) -> Iterator[int]:
    """Yield the candidates that differ from a network in one operation."""
    codes = task.table.codes[task.candidates]
    differ = (codes != task.table.codes[network]).sum(axis=1)
    yield from map(int, task.candidates[differ == 1])


def evolutionary_search(queries: Queries, seed: int) -> None:
    """Ask by NSGA-II (Deb et al., 2002), as optuna has it."""
    import optuna

    _optuna_search(queries, optuna.samplers.NSGAIISampler(population_size=20, seed=seed))


def tree_search(queries: Queries, seed: int) -> None:
    """Ask by the tree-structured Parzen estimator for several objectives, as optuna has it."""
    import optuna

    _optuna_search(queries, optuna.samplers.TPESampler(multivariate=True, seed=seed))


def _optuna_search(queries: Queries, sampler: optuna.samplers.BaseSampler) -> None:
    """Ask for the networks that a sampler suggests. Those that cannot count cost no query."""
    import optuna

    task = queries.task
    numbers = {tuple(code): number for number, code in enumerate(task.table.codes.tolist())}
    choices = [sorted(set(held)) for held in task.table.codes.T.tolist()]
    counts = np.zeros(len(task.us), dtype=bool)
    counts[task.candidates] = True
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler)
    for _ in range(_MOST_TRIALS * queries.budget):
        trial = study.ask()
        code = [
            trial.suggest_categorical(f"pair {pair}", offered)
            for pair, offered in enumerate(choices)
        ]
        network = numbers[tuple(code)]
        accuracy = queries(network) if counts[network] else 0.0
        study.tell(trial, [float(task.us[network]), accuracy])


_MOST_TRIALS = 10
"""Maximum number of suggestions for each query of the budget."""
OURS, LIMITED = "surrogate", "surrogate within limits"
"""Names of our methods: for the front, and for the best network within each limit of time."""
METHODS: Mapping[str, Search] = {
    OURS: surrogate_search,
    LIMITED: limited_search,
    "one-hot surrogate": one_hot_search,
    "random": random_search,
    "local search": local_search,
    "NSGA-II": evolutionary_search,
    "TPE": tree_search,
}
"""Searches by name, ours first."""


def run_search(search: Search, task: TableTask, budget: int, seed: int) -> list[int]:
    """Networks that a search has asked for, in order."""
    queries = Queries(task, budget)
    with one_blas_thread(), contextlib.suppress(BudgetUsed, StopIteration):
        search(queries, seed)
    return queries.known
