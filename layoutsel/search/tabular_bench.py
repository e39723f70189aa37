"""Searches with few queries on tables of networks, repeated with seeds, and their statistics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from layoutsel.search.comparison import Comparison, compare, holm
from layoutsel.search.pool_search import METHODS, OURS, Queries, run_search, surrogate_search
from layoutsel.search.tabular import NetworkTable, TableTask

DEVICES = ("raspi4", "pixel3", "eyeriss", "gold_6226", "titan_rtx_1")
"""Devices: a small computer, a telephone, an accelerator, a server's processor, and a GPU."""
DATA_SETS = ("cifar10", "cifar100", "imagenet16")
"""Data sets."""
BUDGET, SEEDS = 100, 8
"""Number of queries of a search, and of searches of each method and task."""
_CURVE = 10
"""Number of points of a curve of hypervolume over queries."""


@dataclass(frozen=True, kw_only=True)
class SearchRow:
    """One search on a table."""

    device: str
    """Device."""
    data: str
    """Data set."""
    method: str
    """Method, one of :data:`~layoutsel.search.pool_search.METHODS`."""
    seed: int
    """Seed."""
    share: float
    """Hypervolume relative to that of all networks."""
    regret: float
    """Mean accuracy that is lacking within the limits of time, as a share of right answers."""
    curve: tuple[float, ...]
    """Hypervolume relative to that of all networks, after each tenth of the queries."""

    @property
    def task(self) -> tuple[str, str]:
        """Device and data set."""
        return self.device, self.data

    @property
    def key(self) -> tuple[str, str, str, int]:
        """Value that no other row has."""
        return self.device, self.data, self.method, self.seed


def row_of(task: TableTask, method: str, seed: int, budget: int = BUDGET) -> SearchRow:
    """Run one search.

    Raises
    ------
    ModuleNotFoundError
        If the method needs optuna, which is not installed.
    """
    known = run_search(METHODS[method], task, budget, seed)
    ends = [round(budget * (index + 1) / _CURVE) for index in range(_CURVE)]
    return SearchRow(
        device=task.device,
        data=task.data,
        method=method,
        seed=seed,
        share=task.share(known),
        regret=float(task.regrets(known, task.limits_us).mean()),
        curve=tuple(round(task.share(known[:end]), 5) for end in ends),
    )


def tasks(
    table: NetworkTable,
    devices: Sequence[str] = DEVICES,
    data: Sequence[str] = DATA_SETS,
    limits_us: Sequence[float] = (),
) -> Iterator[TableTask]:
    """Yield the tasks of all devices and data sets; arguments as for :meth:`NetworkTable.task`."""
    for device in devices:
        for one in data:
            yield table.task(device, one, limits_us)


def constrained_regret(task: TableTask, seed: int, most_us: float, budget: int = BUDGET) -> float:
    """Accuracy that a search for one limit of time lacks, as a share of right answers."""

    def search(queries: Queries, seed: int) -> None:
        surrogate_search(queries, seed, limits_us=(most_us,))

    known = run_search(search, task, budget, seed)
    return float(task.regrets(known, (most_us,))[0])


@dataclass(frozen=True, kw_only=True)
class MethodSummary:
    """All searches of one method."""

    method: str
    """Method."""
    median: float
    """Median of the hypervolumes relative to those of all networks."""
    worst: float
    """Smallest one."""
    mean: float
    """Mean of them."""
    regret: float
    """Mean accuracy that is lacking within the limits of time."""
    gain: Comparison | None
    """Gain of our searches over it, in pairs of equal tasks and seeds; None for ours."""
    p_seeds: float | None
    """Probability of the gain if methods do not differ, by the seeds' means over all tasks."""
    p_holm: float | None
    """Probability by all pairs, adjusted for the number of methods."""


def summaries(rows: Iterable[SearchRow]) -> list[MethodSummary]:
    """Summarise the searches by method, ours first, over the tasks and seeds that all have."""
    by_key = {row.key: row for row in rows}
    names = [name for name in METHODS if any(key[2] == name for key in by_key)]
    cases = sorted({(key[0], key[1], key[3]) for key in by_key})
    cases = [
        case for case in cases
        if all((case[0], case[1], name, case[2]) in by_key for name in names)
    ]  # fmt: skip
    held = {
        name: [by_key[device, data, name, seed] for device, data, seed in cases] for name in names
    }
    gains, by_seed = {}, {}
    for name in names:
        if name == OURS or OURS not in names:
            continue
        first, second = ([row.share for row in held[one]] for one in (OURS, name))
        gains[name] = compare(first, second)
        seeds = sorted({seed for *_, seed in cases})
        means = [
            [float(np.mean([row.share for row in held[one] if row.seed == seed])) for seed in seeds]
            for one in (OURS, name)
        ]
        by_seed[name] = compare(means[0], means[1]).p
    adjusted = holm({name: gain.p for name, gain in gains.items()})
    return [
        MethodSummary(
            method=name,
            median=float(np.median([row.share for row in held[name]])),
            worst=min(row.share for row in held[name]),
            mean=float(np.mean([row.share for row in held[name]])),
            regret=float(np.mean([row.regret for row in held[name]])),
            gain=gains.get(name),
            p_seeds=by_seed.get(name),
            p_holm=adjusted.get(name),
        )
        for name in names
        if held[name]
    ]
