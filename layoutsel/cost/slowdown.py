"""Slowdown of a run by other work on its cores, learned in relation to the idle machine.

Cores are shared by time slices, fairly: a run next to a process that always wants its core takes
twice as long. A run on several threads waits for the thread on the busiest core. If other cores of
the run are less busy, its threads also wait for time slices where they meet, which slows short runs
many times. The estimate is the fair share; a trained model adds waits and a correction.
"""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import log, log1p
from pathlib import Path
from types import MappingProxyType

import numpy as np

from layoutsel import documents
from layoutsel.core.workload import Cost
from layoutsel.cost.boosters import BoosterPair
from layoutsel.cost.conditions import Conditions
from layoutsel.device.core_load import CoreLoad
from tvm_passes.errors import LayoutselError

SHIPPED = Path(__file__).parent / "pretrained" / "load"
"""Folder of the model that ships with the package."""
FORMAT_VERSION = 1
"""Version of the files."""
LEARNED, MEASURED = "learned", "measured"
"""Sources of times: a measured time under a learned slowdown is learned."""
_ESTIMATE_ERROR = 0.25
"""Half the interquartile range of the error of the estimate's natural logarithm, assumed."""
_SERIAL_US = 1.8
"""Time without load below which kernels use one of several threads, microseconds."""
_SLICE_US = 1000.0
"""Time slice of a scheduler, microseconds."""
_FILES = ("point.ubj.xz", "quantiles.ubj.xz")
_CARD = "model.json"


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


def _highest(run: LoadedRun) -> float:
    return max(run.demands, default=0.0)


def _unevenness(run: LoadedRun) -> float:
    return _highest(run) - min(run.demands, default=0.0)


def fair_share(demand: float) -> float:
    """Slowdown of one thread on a core that other work demands, if both get equal time slices.

    Parameters
    ----------
    demand
        Demand of the other work; one process wants at most 1.
    """
    return 1 / (1 - demand) if demand < 0.5 else max(2.0, 1 + demand)


def wait_terms(run: LoadedRun) -> tuple[float, ...]:
    """Terms of the logarithm of the slowdown by waits of several threads for each other."""
    if run.threads < 2 or run.cost.us < _SERIAL_US:
        return 0.0, 0.0
    # About a slice is added to a run between a busy and a free core, less often at lower demand.
    return _unevenness(run) ** 2 * log1p(_SLICE_US / run.cost.us), _highest(run)


_FEATURES: Mapping[str, Callable[[LoadedRun], float]] = MappingProxyType(
    {
        "highest_demand": _highest,
        "unevenness": _unevenness,
        "threads": lambda run: float(run.threads),
        "idle_us": lambda run: log(max(run.cost.us, 1e-2)),
    }
)
NAMES = tuple(_FEATURES)
"""Names of the features, in order of the columns."""
MONOTONE = frozenset({"highest_demand", "unevenness"})
"""Features that never make a run faster when they grow."""


def table(runs: Sequence[LoadedRun], waits: Sequence[float] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Compute the features of runs, and the estimates of the logarithms of their slowdowns.

    Parameters
    ----------
    runs
        Runs.
    waits
        Coefficients of :func:`wait_terms`; without them, threads do not wait.

    Returns
    -------
    tuple
        Features, (runs, features) float32, and natural logarithms, (runs,) float32.
    """
    rows = np.array(
        [[feature(run) for feature in _FEATURES.values()] for run in runs], np.float32
    ).reshape(len(runs), len(NAMES))
    estimates = [
        log(fair_share(_highest(run))) + (float(np.dot(waits, wait_terms(run))) if waits else 0.0)
        for run in runs
    ]
    return rows, np.array(estimates, np.float32)


@dataclass(frozen=True, kw_only=True)
class SlowdownCard:
    """Description of a trained model of slowdowns."""

    format_version: int
    """:data:`FORMAT_VERSION`."""
    version: str
    """Short hash of the boosters."""
    features: tuple[str, ...]
    """Names of the features."""
    waits: tuple[float, ...]
    """Coefficients of :func:`wait_terms`, at least 0; empty for none."""
    samples: int
    """Number of samples that it was trained on."""
    machines: tuple[str, ...]
    """Names of the machines of the samples."""
    mape: float
    """Mean relative error on loads that it was not trained on."""


@dataclass(frozen=True, kw_only=True)
class Slowdown:
    """Model of slowdowns."""

    card: SlowdownCard
    """Description."""
    boosters: BoosterPair | None
    """Boosters of the logarithm of the slowdown, and of its error; None for the estimate alone."""

    def factors(self, runs: Sequence[LoadedRun]) -> tuple[np.ndarray, np.ndarray]:
        """Predict slowdowns.

        Returns
        -------
        tuple
            Factors on the time without load, at least 1, and 1 on cores without other work; half
            the interquartile range of the error of their natural logarithms, (runs,).
        """
        rows, margins = table(runs, self.card.waits)
        if self.boosters is None:
            return np.exp(margins), np.full(len(runs), _ESTIMATE_ERROR)
        values, errors = self.boosters.predict(rows, margins)
        is_free = rows[:, NAMES.index("highest_demand")] <= 0
        return np.exp(np.where(is_free, 0.0, np.maximum(values, 0.0))), errors

    def applied(self, runs: Sequence[LoadedRun]) -> list[Cost]:
        """Compute the cost of each run under its load."""
        return [
            _slowed(run.cost, float(factor), float(error))
            for run, factor, error in zip(runs, *self.factors(runs), strict=True)
        ]

    def save(self, folder: Path) -> None:
        """Write the files of a trained model."""
        assert self.boosters is not None
        folder.mkdir(parents=True, exist_ok=True)
        for name, raw in zip(_FILES, (self.boosters.point, self.boosters.quantiles), strict=True):
            (folder / name).write_bytes(lzma.compress(raw, preset=9))
        documents.save(self.card, folder / _CARD)

    @classmethod
    def load(cls, folder: Path = SHIPPED) -> Slowdown:
        """Read a model that :meth:`save` wrote.

        Raises
        ------
        LayoutselError
            If the folder has no complete model of this version.
        """
        file = folder / _CARD
        card = documents.from_json(SlowdownCard, documents.load_json(file), file=str(file))
        try:
            pair = BoosterPair(*(lzma.decompress((folder / name).read_bytes()) for name in _FILES))
        except (OSError, lzma.LZMAError) as error:
            raise LayoutselError(
                f"{folder}: the model of slowdowns is not whole: {error}"
            ) from error
        expected = (FORMAT_VERSION, hash_of(pair), NAMES)
        if (card.format_version, card.version, card.features) != expected:
            raise LayoutselError(
                f"{folder}: got a model of slowdowns {card.version} of format "
                f"{card.format_version}; expected {expected[1]} of format {FORMAT_VERSION} with "
                f"the features {', '.join(NAMES)}: train it again"
            )
        return cls(card=card, boosters=pair)


@cache
def shipped_slowdown() -> Slowdown:
    """Return the model that ships with the package; the estimate if none ships."""
    return Slowdown.load() if (SHIPPED / _CARD).exists() else ESTIMATE


ESTIMATE = Slowdown(
    card=SlowdownCard(
        format_version=FORMAT_VERSION,
        version="",
        features=NAMES,
        waits=(),
        samples=0,
        machines=(),
        mape=0.0,
    ),
    boosters=None,
)
"""Model without training: the fair share of the busiest core of a run."""


def hash_of(pair: BoosterPair) -> str:
    """Compute a short hash of two boosters."""
    return hashlib.sha256(pair.point + pair.quantiles).hexdigest()[:12]


def _slowed(cost: Cost, factor: float, error: float) -> Cost:
    time = cost.time_us
    slowed = replace(
        time,
        value=factor * time.value,
        spread=factor * time.spread,
        source=LEARNED if time.source == MEASURED else time.source,
    )
    return replace(cost, time_us=slowed).widened(error)
