"""Slowdown of a run by other work on its cores, in relation to the idle machine.

Cores are shared by time slices, fairly: a run next to a process that always wants its core takes
twice as long. Several threads meet after each kernel, so that the one on the busiest core sets
their pace, in short and in long kernels alike: the other threads of a pool stay off the caller's
core, and compute while their own core is theirs. They get somewhat less than a fair share of a core
that other work always wants. The coefficients are fitted to recorded runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import exp, log
from pathlib import Path

import numpy as np

from layoutsel import documents
from layoutsel.core.workload import Cost
from layoutsel.cost.conditions import Conditions
from layoutsel.device.core_load import CoreLoad

SHIPPED = Path(__file__).parent / "pretrained" / "load"
"""Folder of the model that ships with the package."""
FORMAT_VERSION = 3
"""Version of the file."""
LEARNED, MEASURED = "learned", "measured"
"""Sources of times: a measured time under a learned slowdown is learned."""
SLICE_US = 4000.0
"""Time slice of Linux's scheduler at its usual clock of 250 Hz, microseconds."""
_SERIAL_US = 1.8
"""Time without load below which kernels use one of several threads, microseconds."""
_CARD = "model.json"
_RENEW = "Train it again with 'layoutsel train'"


@dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """A run without boundaries, with its cost on an idle machine and the load it will meet."""

    cost: Cost
    """Cost without load."""
    threads: int
    """Number of threads."""
    cores: tuple[int, ...]
    """Positions of the cores that the threads run on."""
    load: CoreLoad
    """Other work."""

    @classmethod
    def of(cls, cost: Cost, asked: Conditions, known: Conditions) -> LoadedRun:
        """Make a run under conditions with a load.

        Threads that are not confined to cores run on the least busy ones.

        Parameters
        ----------
        cost
            Cost without load.
        asked
            Conditions of the run.
        known
            Conditions of `cost`, for the number of threads if `asked` has none.
        """
        assert asked.load is not None
        threads = asked.threads or known.threads or len(asked.load.busy)
        cores = asked.cores or asked.load.least_busy(threads)
        return cls(cost=cost, threads=threads, cores=cores, load=asked.load)

    @property
    def demands(self) -> tuple[float, ...]:
        """Demand of other work for each core of the run."""
        return tuple(self.load.busy[core] for core in self.cores)

    @property
    def is_serial(self) -> bool:
        """True if one thread computes: the only one, or the one on the least busy core."""
        return self.threads < 2 or self.cost.us < _SERIAL_US

    @property
    def demand_elsewhere(self) -> float:
        """Highest demand of other work for a core that is not of the run, at most 1."""
        others = (share for core, share in enumerate(self.load.busy) if core not in self.cores)
        return min(max(others, default=0.0), 1.0)


def fair_share(demand: float) -> float:
    """Slowdown of one thread on a core that other work demands, if both get equal time slices.

    Parameters
    ----------
    demand
        Demand of the other work; one process wants at most 1.
    """
    return 1 / (1 - demand) if demand < 0.5 else max(2.0, 1 + demand)


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """Coefficients of shared cores; without them, every thread gets its fair share."""

    crowd: float = 0.0
    """Added to the logarithm of one thread's slowdown if all other cores are busy as well."""
    even: float = 0.0
    """Exponent of the fair share of the least busy core of several threads."""
    apart: float = 1.0
    """Slowdown of several threads by a core that is always wanted, over the fair share, >= 1."""

    def log_factor(self, run: LoadedRun) -> float:
        """Natural logarithm of the slowdown, at least 0."""
        high, low = max(run.demands, default=0.0), min(run.demands, default=0.0)
        if run.is_serial:
            return log(fair_share(low)) + self.crowd * min(low, 1.0) * run.demand_elsewhere
        slowest = self.apart * fair_share(high)
        if high < 1:
            slowest = min(slowest, 1 / (1 - high))  # the time that other work leaves
        return log(slowest) + self.even * log(fair_share(low))


@dataclass(frozen=True, kw_only=True)
class Slowdown:
    """Model of slowdowns, as in its file."""

    format_version: int = FORMAT_VERSION
    """:data:`FORMAT_VERSION`."""
    sharing: Sharing
    """Coefficients."""
    serial_error: float
    """Half the interquartile range of the error of the logarithm, for one busy thread."""
    error: float
    """Half the interquartile range of the error of the logarithm, for several threads."""
    samples: int = 0
    """Number of samples that it was trained on."""
    machines: tuple[str, ...] = ()
    """Names of the machines of the samples."""
    mape: float = 0.0
    """Mean relative error on loads that it was not trained on."""

    def factors(self, runs: Sequence[LoadedRun]) -> tuple[np.ndarray, np.ndarray]:
        """Predict slowdowns.

        Returns
        -------
        tuple
            Factors on the time without load, at least 1, and 1 on cores without other work; half
            the interquartile range of the error of their natural logarithms, (runs,).
        """
        factors = np.array([exp(self.sharing.log_factor(run)) for run in runs])
        errors = [self.serial_error if run.is_serial else self.error for run in runs]
        return factors, np.array(errors)

    def applied(self, runs: Sequence[LoadedRun]) -> list[Cost]:
        """Compute the cost of each run under its load."""
        return [
            _slowed(run.cost, float(factor), float(error))
            for run, factor, error in zip(runs, *self.factors(runs), strict=True)
        ]

    def save(self, folder: Path) -> None:
        """Write the file of a trained model."""
        folder.mkdir(parents=True, exist_ok=True)
        documents.save(self, folder / _CARD)

    @classmethod
    def load(cls, folder: Path = SHIPPED) -> Slowdown:
        """Read a model that :meth:`save` wrote.

        Raises
        ------
        DocumentError
            If the folder has no complete model of this version.
        """
        file = folder / _CARD
        found = documents.load_json(file)
        known = (FORMAT_VERSION,)
        documents.check_version(found, "format_version", known, renew=_RENEW, file=str(file))
        return documents.from_json(cls, found, file=str(file))


@cache
def shipped_slowdown() -> Slowdown:
    """Return the model that ships with the package; the estimate if none ships."""
    return Slowdown.load() if (SHIPPED / _CARD).exists() else ESTIMATE


ESTIMATE = Slowdown(sharing=Sharing(), serial_error=0.25, error=0.25)
"""Model without training: the fair share of the busiest core of a run, with an assumed error."""


def _slowed(cost: Cost, factor: float, error: float) -> Cost:
    time = cost.time_us
    slowed = replace(
        time,
        value=factor * time.value,
        spread=factor * time.spread,
        source=LEARNED if time.source == MEASURED else time.source,
    )
    return replace(cost, time_us=slowed).widened(error)
