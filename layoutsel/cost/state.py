"""Speed of the machine at the moment, relative to its kept peaks.

Shared machines change by the hour, and by resource: arithmetic can be as fast as ever while the
memory gives a third. Predictions hold for the peaks; the state tells how far they are from now.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from layoutsel.cost.peaks import MachinePeaks, kept_name, probe
from layoutsel.cost.probing import remembered
from layoutsel.device.machine import Machine, this_machine
from tvm_passes.errors import LayoutselError

_BUDGET_S = 0.08
"""Time budget of each of the probe's measurements, seconds."""
_AGE_S = 60.0
"""Age from which the state is probed again, seconds."""


@dataclass(frozen=True, kw_only=True)
class MachineState:
    """Present rates relative to the machine's peaks, each above 0 and at most 1."""

    compute: float
    """Rate of arithmetic."""
    memory: float
    """Read bandwidth of the memory."""

    def __post_init__(self) -> None:
        for name in ("compute", "memory"):
            if not 0 < getattr(self, name) <= 1:
                raise LayoutselError(f"{name}: got {getattr(self, name)}; expected a share up to 1")

    def slowed(self, us: float, memory_share: float) -> float:
        """Time at the present speed of a run that takes `us` at the peaks, microseconds.

        `memory_share` is the share of the run that waits for memory, 0 to 1.
        """
        return us * ((1 - memory_share) / self.compute + memory_share / self.memory)


def machine_state(peaks: MachinePeaks, folder: Path | None = None) -> MachineState:
    """Probe the state of this machine; takes about half a second, and holds for a minute.

    Parameters
    ----------
    peaks
        Kept peaks of this machine.
    folder
        Folder of the results; by default the user's cache folder.

    Raises
    ------
    LayoutselError
        If the measuring process fails.
    """
    name = state_name(this_machine(), peaks.threads)
    measure = partial(probed_state, peaks)
    return remembered(MachineState, name, measure, folder, lambda _, age_s: age_s < _AGE_S)


def state_name(machine: Machine, threads: int) -> str:
    """Name under which the state of `machine` is kept."""
    return kept_name(machine, threads).replace("peaks", "state")


def probed_state(peaks: MachinePeaks) -> MachineState:
    """Probe the state of this machine; errors as in :func:`machine_state`."""
    now = probe(peaks.threads, _BUDGET_S, at_best=False)
    return MachineState(
        compute=min(now.gflops / peaks.gflops, 1.0),
        memory=min(now.memory_gbps / peaks.memory_gbps, 1.0),
    )
