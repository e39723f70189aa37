"""Load: other work on the cores that a run may use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite

from tvm_passes.errors import LayoutselError

COMPUTE, MEMORY = "compute", "memory"
KINDS = (COMPUTE, MEMORY)
"""Kinds of work: arithmetic within the caches, or streams through the main memory."""
UNKNOWN_KIND = 0.5
"""Share of memory streams if the kind of the work is unknown."""


@dataclass(frozen=True, kw_only=True)
class BusyProcess:
    """A process that occupies one core.

    Raises
    ------
    LayoutselError
        If the kind is unknown, the core is below zero, or the duty is not above 0 and at most 1.
    """

    core: int
    """Position of the core among those of this process, from 0."""
    kind: str = COMPUTE
    """One of :data:`KINDS`."""
    duty: float = 1.0
    """Share of the time for which the process wants the core, above 0 and at most 1."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.core < 0 or not 0 < self.duty <= 1:
            raise LayoutselError(
                f"load: got {self}; expected a core from 0, a kind out of {', '.join(KINDS)}, "
                "and a duty above 0 and at most 1"
            )

    def __str__(self) -> str:
        return f"{self.kind}:{self.core}:{self.duty:g}"


@dataclass(frozen=True, kw_only=True)
class CoreLoad:
    """Demand of other work for cores.

    Demand is the share of time for which the work would occupy a core if it had the core alone. It
    exceeds 1 where several processes want the same core.

    Raises
    ------
    LayoutselError
        If a demand is negative or not finite, or `streaming` is not from 0 to 1.
    """

    busy: tuple[float, ...]
    """Demand for each core of this process, in ascending order of core numbers."""
    streaming: float = UNKNOWN_KIND
    """Share of the work that streams through the main memory, 0 to 1."""

    def __post_init__(self) -> None:
        if not all(isfinite(share) and share >= 0 for share in self.busy):
            raise LayoutselError(
                f"load: got demands {self.busy}; expected finite numbers from 0, one per core"
            )
        if not 0 <= self.streaming <= 1:
            raise LayoutselError(f"load: got streaming {self.streaming}; expected 0 to 1")

    def __str__(self) -> str:
        demands = " + ".join(f"{100 * share:.0f} %" for share in self.busy)
        return f"{demands} busy, {100 * self.streaming:.0f} % of it streaming"

    @property
    def busy_cores(self) -> float:
        """Number of cores that the work would occupy; several processes on a core count once."""
        return sum(min(share, 1.0) for share in self.busy)

    @property
    def is_idle(self) -> bool:
        """True if there is no other work."""
        return not any(self.busy)

    def least_busy(self, count: int) -> tuple[int, ...]:
        """Positions of the `count` cores with the least demand; all cores if there are fewer."""
        ranked = sorted(range(len(self.busy)), key=self.busy.__getitem__)
        return tuple(sorted(ranked[:count]))

    @classmethod
    def idle(cls, cores: int) -> CoreLoad:
        """Make the load of a machine without other work on its `cores` cores."""
        return cls(busy=(0.0,) * cores)

    @classmethod
    def of(cls, processes: Iterable[BusyProcess], cores: int) -> CoreLoad:
        """Make the load of some processes on a machine with `cores` cores.

        Raises
        ------
        LayoutselError
            If a process names a core that does not exist.
        """
        busy, streaming = [0.0] * cores, 0.0
        for process in processes:
            check_core(process, range(cores))
            busy[process.core] += process.duty
            streaming += process.duty * (process.kind == MEMORY)
        total = sum(busy)
        return cls(busy=tuple(busy), streaming=streaming / total if total else UNKNOWN_KIND)


def check_core(process: BusyProcess, cores: Sequence[int]) -> None:
    """Reject a process on a core that does not exist."""
    if process.core >= len(cores):
        raise LayoutselError(
            f"load {process}: got core {process.core}; expected one of the {len(cores)} cores "
            "of this process, counted from 0"
        )
