"""A kernel of known speed, timed beside every candidate: how fast the machine is at the moment.

A shared machine drifts by several per cent within minutes. The same small convolution is therefore timed in turns with
the candidate, and the candidate's time is scaled to what it would be with the machine at the best that was ever seen.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import platformdirs
import tvm
from tvm import relax

from layoutsel.building.candidate import Candidate, build_candidate
from layoutsel.cost.machine import this_machine
from tvm_passes.cpu import host_target
from tvm_passes.cpu.host import vector_unit
from tvm_passes.decision import Decision
from tvm_passes.partition import PartitionSubgraphs

_CHANNELS, _SIDE = 64, 28
"""115 MFLOP on 350 kB: bound by arithmetic, inside the second-level cache."""
SLOWEST = 0.75
"""A correction below this says that something else is computing: the rest is uncertainty."""


@cache
def reference_kernel() -> Candidate:
    """The convolution, built once per process."""
    builder = relax.BlockBuilder()
    image = relax.TensorType((1, _CHANNELS, _SIDE, _SIDE), "float32")
    x = relax.Var("x", image)
    weights = np.random.default_rng(0).standard_normal((_CHANNELS, _CHANNELS, 3, 3))
    w = relax.const(0.05 * weights.astype("float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            output = builder.emit_output(relax.op.nn.conv2d(x, w, padding=(1, 1)))
        builder.emit_func_output(output)
    module = PartitionSubgraphs()(builder.finalize())
    function = next(f for gv, f in module.functions.items() if gv.name_hint != "main")
    target = host_target()
    packed = "NCHW16c" if vector_unit(target).lanes >= 16 else "NCHW8c"
    return build_candidate(function, Decision(unit="cpu", layout=packed), target)


class BestReference:
    """The least time of the reference kernel that was ever seen on this machine; kept in the user's cache folder."""

    def __init__(self, threads: int, folder: Path | None = None) -> None:
        folder = folder or Path(platformdirs.user_cache_dir("layoutsel"))
        self._file = folder / f"reference-{this_machine().fingerprint}-{threads}.json"
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
        temporary = self._file.with_suffix(f".{os.getpid()}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps({"us": reference_us}), encoding="utf-8")
            temporary.replace(self._file)
        except OSError:
            return  # without the file, each process starts from its own best


@cache
def best_reference(threads: int) -> BestReference:
    """The one of this process."""
    return BestReference(threads)


def time_reference(runs: int = 1) -> float:
    """Microseconds of one run of the reference kernel."""
    kernel = reference_kernel()
    evaluator = kernel.machine.time_evaluator("main", tvm.cpu(), number=runs, repeat=1)
    return 1e6 * float(evaluator(*kernel.arguments).results[0]) / kernel.copies
