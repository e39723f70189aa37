"""State of a machine when a cost is asked, and the uncertainty that an unfamiliar state adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite, log, log1p
from types import MappingProxyType

from layoutsel.device.core_load import CoreLoad
from tvm_passes.errors import LayoutselError


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """State of a machine; None means the state in which the model's data were measured.

    Raises
    ------
    LayoutselError
        If a number is not finite, not above zero (threads, frequency) or below zero (queue), or a
        core is not among those of the load.
    """

    threads: int | None = None
    """Number of threads that compute."""
    cores: tuple[int, ...] = ()
    """Positions of the cores that the threads are confined to; empty for any cores."""
    load: CoreLoad | None = None
    """Other work on the cores of the machine; :mod:`layoutsel.cost.slowdown` prices it."""
    frequency_mhz: float | None = None
    """Clock rate of the cores, MHz."""
    queue: float | None = None
    """Number of runs that wait in front of this one."""

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not (isfinite(value) and value >= least):
                raise LayoutselError(
                    f"conditions: got {name} {value}; expected a finite number of at least "
                    f"{least:g}, or None for the state in which costs were measured"
                )
        if self.load is not None and not set(self.cores) <= set(range(len(self.load.busy))):
            raise LayoutselError(
                f"conditions: got cores {self.cores}; expected positions among the "
                f"{len(self.load.busy)} cores of the load, from 0"
            )

    @property
    def is_loaded(self) -> bool:
        """True if there is other work on the machine."""
        return self.load is not None and not self.load.is_idle


_LEAST: Mapping[str, float] = MappingProxyType({"threads": 1, "frequency_mhz": 1, "queue": 0})

AS_MEASURED = Conditions()
"""The state in which a cost model's data were measured."""

_UNKNOWN_FREQUENCY = 0.5
"""Added uncertainty if the clock rate of the measurements is unknown.

Half the interquartile range of the natural logarithm of time.
"""


def _threads(asked: Conditions, known: Conditions) -> float:
    if asked.threads == known.threads or asked.threads is None:
        return 0.0
    return abs(log(asked.threads / known.threads)) if known.threads else log(asked.threads)


def _frequency(asked: Conditions, known: Conditions) -> float:
    if asked.frequency_mhz in (None, known.frequency_mhz):
        return 0.0
    if known.frequency_mhz is None or asked.frequency_mhz is None:
        return _UNKNOWN_FREQUENCY
    return abs(log(asked.frequency_mhz / known.frequency_mhz))


def _queue(asked: Conditions, known: Conditions) -> float:
    return log1p(abs(asked.queue - (known.queue or 0.0))) if asked.queue is not None else 0.0


_DOUBTS: tuple[Callable[[Conditions, Conditions], float], ...] = (
    _threads,
    _frequency,
    _queue,
)


def uncertainty(asked: Conditions, known: Conditions) -> float:
    """Uncertainty that a model with data of the state `known` adds to a cost in the state `asked`.

    Time at most scales with the ratio of threads and of clock rates, and with the length of the
    queue. Each adds the logarithm of its ratio. A load changes the time itself instead.

    Returns
    -------
    float
        Half the interquartile range of the natural logarithm of time.
    """
    return 0.0 if asked is AS_MEASURED else sum(doubt(asked, known) for doubt in _DOUBTS)
