"""Timing of everything in a bundle, in child processes, with partial results saved."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import tvm_ffi

from layoutsel import documents
from layoutsel.device import results as documents_of
from layoutsel.device.archive import Bundle
from layoutsel.device.deployed import BundledModel
from layoutsel.device.machine import this_machine
from layoutsel.device.manifest import BoundaryEntry, CandidateEntry, ProgramEntry
from layoutsel.device.outcome import Failure, Outcome, Timing
from layoutsel.device.peaks import memory_rates
from layoutsel.device.reference import FLOPS
from layoutsel.device.results import (
    BoundaryResult,
    CandidateResult,
    DeployedResult,
    DeviceFound,
    MachineFound,
    Results,
)
from layoutsel.device.trial import Trial
from layoutsel.device.units import identity
from layoutsel.device.worker import Reply, Worker
from tvm_passes.devices import DEVICE_TYPES, DeviceId
from tvm_passes.errors import LayoutselError

_CLOCK_KHZ, _COMPUTE_UNITS = 6, 7
"""TVM's numbers of the device attributes clock rate and number of compute units."""
_SAVE_EVERY_S = 2.0
"""Shortest time between two saves of partial results, seconds."""
_TRIAL = "layoutsel.device.trial:run_trial"
"""Function of the child process that times candidates and boundaries."""
_DEPLOYED = "layoutsel.device.deployed:run_deployed"
"""Function of the child process that checks and times a model."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Report after one measurement."""

    done: int
    """Number of finished measurements."""
    total: int
    """Number of measurements to do."""
    label: str
    """Name of the candidate or boundary."""
    outcome: Outcome
    """Time or failure."""


def measure_bundle(
    bundle: Bundle, output: Path, time_limit_s: float, on_progress: Callable[[Progress], None]
) -> Results:
    """Time everything in a bundle that `output` has no result for.

    The file is saved regularly and is a complete document at any time.

    Parameters
    ----------
    bundle
        Unpacked bundle.
    output
        File of the results; an existing one from the same bundle is continued.
    time_limit_s
        Time limit of one candidate, including loading, seconds.
    on_progress
        Called after every measurement.

    Raises
    ------
    LayoutselError
        If `output` holds other data or cannot be written, or the bundle does not run here.
    """
    with _worker(bundle, _TRIAL, time_limit_s) as worker:
        results = _begun(bundle, output, worker)
        missing = list(_missing(bundle, results))
        saved = time.monotonic()
        try:
            for done, entry in enumerate(missing, start=1):
                outcome = _timed(worker.call(_trial_of(bundle, entry)))
                results = _with(results, entry, outcome)
                if time.monotonic() - saved >= _SAVE_EVERY_S:
                    documents.save(results, output)
                    saved = time.monotonic()
                on_progress(
                    Progress(done=done, total=len(missing), label=entry.label, outcome=outcome)
                )
            results = replace(
                results, deployed=_deployed(bundle, results, time_limit_s), complete=True
            )
        finally:
            documents.save(results, output)
    return results


def _begun(bundle: Bundle, output: Path, worker: Worker) -> Results:
    """Results so far, from `output` if it exists."""
    if output.exists():
        known = documents_of.load(output)
        if known.bundle == bundle.digest and known.machine.described == this_machine():
            return _worth_keeping(known)
        raise LayoutselError(
            f"{output} holds the results of another bundle or another machine: "
            "choose another output file"
        )
    manifest = bundle.manifest
    return Results(
        schema_version=documents_of.SCHEMA_VERSION,
        bundle=bundle.digest,
        model=manifest.model,
        machine=_machine(bundle, worker),
        threads=manifest.requires.threads,
        versions=manifest.requires.versions,
        complete=False,
        workloads=manifest.workloads,
        candidates=tuple(
            CandidateResult(key=u.key, decision=u.decision, timing=None, failure=u.reason)
            for u in manifest.unbuilt
        ),
        boundaries=(),
        deployed=None,
    )


def _worth_keeping(known: Results) -> Results:
    """Copy `known` without failures that may not happen again; those are measured again."""

    def is_kept(one: CandidateResult | BoundaryResult) -> bool:
        return isinstance(one.outcome, Timing) or one.outcome.is_reproducible

    return replace(
        known,
        candidates=tuple(filter(is_kept, known.candidates)),
        boundaries=tuple(filter(is_kept, known.boundaries)),
    )


def _machine(bundle: Bundle, worker: Worker) -> MachineFound:
    reference = _timed(worker.call(_trial(bundle, bundle.manifest.reference)))
    if isinstance(reference, Failure):
        raise LayoutselError(f"the reference kernel does not run here: {reference.reason}")
    memory_gbps, cache_gbps = memory_rates(bundle.manifest.requires.threads)
    return MachineFound(
        described=this_machine(),
        gflops=FLOPS / reference.us / 1e3,
        memory_gbps=memory_gbps,
        cache_gbps=cache_gbps,
        devices={
            name: _device(DeviceId.named(name), bundle.manifest.targets[name])
            for name in bundle.manifest.requires.devices
        },
    )


def _device(device: DeviceId, target: str) -> DeviceFound:
    attribute = tvm_ffi.get_global_func("runtime.GetDeviceAttr")
    clock_khz, units = (
        attribute(DEVICE_TYPES[device.target_kind], device.index, number)
        for number in (_CLOCK_KHZ, _COMPUTE_UNITS)
    )
    return DeviceFound(
        identity=identity(device.kind, device.index),
        target=target,
        compute_units=max(int(units or 1), 1),
        clock_mhz=max(float(clock_khz or 0) / 1e3, 1.0),
    )


def _missing(bundle: Bundle, results: Results) -> Iterator[CandidateEntry | BoundaryEntry]:
    tried = {*map(_identity, results.candidates), *map(_identity, results.boundaries)}
    yield from (entry for entry in bundle.manifest.candidates if _identity(entry) not in tried)
    yield from (entry for entry in bundle.manifest.boundaries if _identity(entry) not in tried)


def _identity(
    entry: CandidateEntry | BoundaryEntry | CandidateResult | BoundaryResult,
) -> tuple[object, ...]:
    if isinstance(entry, CandidateEntry | CandidateResult):
        return entry.key, entry.decision
    return entry.kind, entry.source, entry.destination, entry.tensor


def _worker(bundle: Bundle, function: str, time_limit_s: float) -> Worker:
    threads = str(bundle.manifest.requires.threads)
    return Worker(
        function,
        time_limit_s=time_limit_s,
        environment={"OMP_NUM_THREADS": threads, "TVM_NUM_THREADS": threads},
    )


def _deployed(bundle: Bundle, results: Results, time_limit_s: float) -> DeployedResult | None:
    """Check and time of the whole model; None if the bundle has none."""
    deployed = bundle.manifest.deployed
    if deployed is None or results.deployed is not None:
        return results.deployed
    devices = bundle.manifest.requires.devices
    with _worker(bundle, _DEPLOYED, time_limit_s) as worker:
        reply = worker.call(BundledModel(folder=bundle.folder, deployed=deployed, devices=devices))
    if isinstance(reply, Failure):
        raise LayoutselError(f"the model does not run here: {reply.reason}")
    found: DeployedResult = reply.value
    return found


def _trial_of(bundle: Bundle, entry: CandidateEntry | BoundaryEntry) -> Trial:
    if isinstance(entry, CandidateEntry):
        return _trial(bundle, entry.program)
    return _trial(bundle, *entry.programs, places=entry.places, shape=entry.tensor.shape)


def _trial(
    bundle: Bundle,
    *programs: ProgramEntry,
    places: tuple[str, ...] = (),
    shape: tuple[int, ...] = (),
) -> Trial:
    return Trial(
        folder=bundle.folder,
        programs=programs,
        places=places,
        shape=shape,
        reference=bundle.manifest.reference,
        threads=bundle.manifest.requires.threads,
        units=bundle.manifest.requires.units,
    )


def _timed(reply: Reply | Failure) -> Outcome:
    if isinstance(reply, Failure):
        return reply
    us, spread_us, runs = reply.value
    return Timing(us=us, spread_us=spread_us, runs=runs)


def _with(results: Results, entry: CandidateEntry | BoundaryEntry, outcome: Outcome) -> Results:
    timing = outcome if isinstance(outcome, Timing) else None
    failure = outcome.text if isinstance(outcome, Failure) else None
    if isinstance(entry, CandidateEntry):
        one = CandidateResult(
            key=entry.key, decision=entry.decision, timing=timing, failure=failure
        )
        return replace(results, candidates=(*results.candidates, one))
    other = BoundaryResult(
        kind=entry.kind,
        source=entry.source,
        destination=entry.destination,
        tensor=entry.tensor,
        timing=timing,
        failure=failure,
    )
    return replace(results, boundaries=(*results.boundaries, other))
