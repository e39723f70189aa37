"""Slowdown of two workers by each other, in short runs of a whole network on both."""

from __future__ import annotations

import statistics
import threading
import time
from functools import partial

from layoutsel.device.entry_points import StageChain
from layoutsel.device.stage_worker import TensorWorker
from layoutsel.device.threads import available_cores
from layoutsel.device.worker_machines import Machines
from layoutsel.exits.arrangement import WorkerKind
from layoutsel.runtime.arrays import to_tensor
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.samples import random_inputs

_PROBE_S = 0.2
"""Duration of the runs of one measurement, seconds."""
_LIMIT_S = 10.0
"""Time limit of one run while measuring, seconds."""


def _worker(compiled: CompiledModel, kind: WorkerKind, after: int) -> TensorWorker:
    """Make a worker on the cores that follow the first `after` ones, or on all for a device."""
    cores = available_cores()[after : after + kind.cores]
    return compiled.worker(threads=kind.threads, cores=cores or None, limit_s=_LIMIT_S)


def corun_slowdown(
    kind: WorkerKind, own: CompiledModel, other: WorkerKind, theirs: CompiledModel
) -> float:
    """Time of a network on a worker while another one computes, over that alone; at least 1.

    Parameters
    ----------
    kind
        Worker on the first cores, or on a device.
    own
        The network in stages, compiled for it.
    other
        Worker on the next cores, or on a device.
    theirs
        The network in stages, compiled for this one.
    """
    with _worker(own, kind, 0) as worker, _worker(theirs, other, kind.cores) as beside:
        alone_s = _run_s(own, worker)
        stop = threading.Event()
        run = beside.submit("run beside", partial(_repeat, theirs, stop))
        try:
            return max(1.0, _run_s(own, worker) / alone_s)
        finally:
            stop.set()
            run.result(2 * _LIMIT_S)


def _run_s(compiled: CompiledModel, worker: TensorWorker) -> float:
    """Median time of a run of the whole network on a worker, seconds."""
    return float(worker.submit("run", partial(_repeat, compiled, None)).result(2 * _LIMIT_S))


def _repeat(compiled: CompiledModel, until: threading.Event | None, machines: Machines) -> float:
    """Run the whole network for some time or until told, and return the median time, seconds."""
    chain = StageChain.of(compiled.stages, range(len(compiled.stages)))
    named = {f"input.{n}": value for n, value in enumerate(random_inputs(compiled.inputs))}
    tensors = [to_tensor(named[one.name]) for one in chain.inputs]
    run = machines.function(chain, is_watched=False)
    run(*tensors)  # prepares the primitives
    times: list[float] = []
    end_s = time.monotonic() + (_PROBE_S if until is None else _LIMIT_S / 2)
    while not times or (time.monotonic() < end_s and not (until and until.is_set())):
        start_s = time.perf_counter()
        run(*tensors)
        times.append(time.perf_counter() - start_s)
    return statistics.median(times)
