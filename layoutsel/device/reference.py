"""A kernel of known speed that is timed with every candidate and shows the machine's speed.

A shared machine drifts by several per cent within minutes. The same small convolution is therefore
timed in alternation with the candidate. The candidate's time is then scaled to the best speed ever
seen on the machine.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from layoutsel.core.files import WriteError, write_text
from layoutsel.device.machine import this_machine
from tvm_passes.cache_folder import user_cache

CHANNELS, SIDE = 64, 28
"""Channels and side of its images: 115 MFLOP on 350 kB, compute-bound in a second-level cache."""
FLOPS = 2 * CHANNELS * CHANNELS * 9 * SIDE * SIDE
"""Floating-point operations of one run."""
SLOWEST = 0.75
"""Lowest factor that corrects a candidate's time for a slow machine.

If the machine is even slower, other processes compute; the rest of the difference is added to the
uncertainty.
"""


class BestReference:
    """Lowest time of the reference kernel on this machine, kept in the user's cache folder.

    Parameters
    ----------
    threads
        Number of threads; each number has a time of its own.
    folder
        Folder of the file; the user's cache folder if None.
    """

    def __init__(self, threads: int, folder: Path | None = None) -> None:
        folder = folder or user_cache()
        # Files with an older name hold times of a kernel whose blocking depended on the cores.
        self._file = folder / f"reference-{this_machine().fingerprint}-{threads}-threads.json"
        self._best_us: float | None = None

    def speed(self, reference_us: float) -> float:
        """Speed of the machine relative to its best, at most 1, from the kernel's time."""
        best_us = self._best()
        if best_us is None or reference_us < best_us:
            self._keep(reference_us)
            return 1.0
        return best_us / reference_us

    def _best(self) -> float | None:
        if self._best_us is None:
            try:
                self._best_us = float(json.loads(self._file.read_text(encoding="utf-8"))["us"])
            except (OSError, ValueError, KeyError, TypeError):
                return None
        return self._best_us

    def _keep(self, reference_us: float) -> None:
        self._best_us = reference_us
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._file, json.dumps({"us": reference_us}))
        except (OSError, WriteError):
            return  # without the file, each process uses its own best time


@cache
def best_reference(threads: int) -> BestReference:
    """Best reference time of this process, for one number of threads."""
    return BestReference(threads)
