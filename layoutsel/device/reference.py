"""A kernel of known speed, timed beside every candidate: how fast the machine is at the moment.

A shared machine drifts by several per cent within minutes. The same small convolution is therefore timed in turns with
the candidate, and the candidate's time is scaled to what it would be with the machine at the best that was ever seen.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from layoutsel.core.files import WriteError, write_text
from layoutsel.device.machine import this_machine
from tvm_passes.cache_folder import user_cache

CHANNELS, SIDE = 64, 28
"""Of its images: 115 MFLOP on 350 kB, bound by arithmetic, inside the second-level cache."""
FLOPS = 2 * CHANNELS * CHANNELS * 9 * SIDE * SIDE
SLOWEST = 0.75
"""A correction below this says that something else is computing: the rest is uncertainty."""


class BestReference:
    """The least time of the reference kernel that was ever seen on this machine; kept in the user's cache folder."""

    def __init__(self, threads: int, folder: Path | None = None) -> None:
        folder = folder or user_cache()
        # Files of an older name hold times of a kernel that was blocked for the cores.
        self._file = folder / f"reference-{this_machine().fingerprint}-{threads}-threads.json"
        self._best_us: float | None = None

    def speed(self, reference_us: float) -> float:
        """Part of the machine's best speed that it has where the reference takes `reference_us`; at most 1."""
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
            return  # without the file, each process starts from its own best


@cache
def best_reference(threads: int) -> BestReference:
    """The one of this process."""
    return BestReference(threads)
