"""Timing of one candidate or boundary of a bundle; a child process calls it by name."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm_ffi

from layoutsel.device.candidate import LoadedCandidate
from layoutsel.device.manifest import Argument, ProgramEntry
from layoutsel.device.tensors import random_tensor, tensor_of
from layoutsel.device.threads import set_threads
from layoutsel.device.timing import Measured, time_candidate, time_copy, time_crossing
from layoutsel.device.units import missing
from layoutsel.device.virtual_machine import load_library, virtual_machine
from tvm_passes.devices import DeviceId
from tvm_passes.runtime_library import load_tvm_runtime

INPUT_SEED = 1000
"""Seed of the first input; further inputs count up. Weights count up from 0."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A measurement of a candidate or transform (one program), hand-over (three) or copy (none)."""

    folder: Path
    """Folder of the unpacked bundle."""
    programs: tuple[ProgramEntry, ...]
    """Programs to time."""
    places: tuple[str, ...]
    """Source and destination device of a copy; empty otherwise."""
    shape: tuple[int, ...]
    """Dimensions of the tensor of a copy."""
    reference: ProgramEntry
    """Reference kernel."""
    threads: int
    """Number of threads."""
    units: tuple[str, ...]
    """Units to load first."""


def run_trial(trial: Trial) -> Measured:
    """Time a trial, as :mod:`layoutsel.device.timing` does."""
    prepare(trial.units, trial.threads)
    if not trial.programs:
        return time_copy(tuple(map(DeviceId.named, trial.places)), trial.shape)
    candidates = [load_program(trial.folder, program) for program in trial.programs]
    reference = load_program(trial.folder, trial.reference)
    if len(candidates) > 1:
        return time_crossing(candidates, reference, trial.threads)
    return time_candidate(candidates[0], reference, trial.threads)


def prepare(units: tuple[str, ...], threads: int) -> None:
    """Load TVM's runtime and the libraries of the units, and set the number of threads."""
    load_tvm_runtime()
    for unit in units:
        missing(unit)
    set_threads(threads)


def load_program(folder: Path, program: ProgramEntry) -> LoadedCandidate:
    """Load a program of an unpacked bundle with its arguments."""
    devices = tuple(map(DeviceId.named, program.devices))
    module = load_library(folder / program.file, devices)
    inputs = [_tensor(arg, INPUT_SEED + index) for index, arg in enumerate(program.inputs)]
    weights = [_tensor(argument, index) for index, argument in enumerate(program.weights)]
    return LoadedCandidate(
        machine=virtual_machine(module, devices),
        arguments=(*inputs, tvm_ffi.convert(weights)),
        copies=program.copies,
        device=DeviceId.named(program.device),
    )


def _tensor(argument: Argument, seed: int) -> Any:
    place = DeviceId.named(argument.place)
    if argument.data is None:
        return random_tensor(argument.shape, argument.dtype, seed, place)
    data = base64.b64decode(argument.data)
    return tensor_of(data, argument.shape, argument.dtype, place)
