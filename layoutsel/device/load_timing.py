"""Timing of a bundle's candidates on given cores, whatever else these cores do."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from layoutsel.device.candidate import LoadedCandidate
from layoutsel.device.manifest import ProgramEntry
from layoutsel.device.threads import set_threads
from layoutsel.device.trial import load_program
from layoutsel.device.units import missing
from tvm_passes.runtime_library import load_tvm_runtime

_MOST_RUNS = 1_000_000
"""Maximum number of runs in one timing."""
_PARTS = 8
"""Number of parts of a timing, after each of which it may end."""
_MOST_WINDOWS = 4.0
"""Time after which a timing ends early, relative to its window without load.

Threads that wait for each other by spinning can be slowed a hundredfold by another process.
"""


@dataclass(frozen=True, kw_only=True)
class LoadedProgram:
    """A candidate of an unpacked bundle, and the threads and cores to run it on."""

    folder: Path
    """Folder of the bundle."""
    program: ProgramEntry
    """Program of the candidate."""
    units: tuple[str, ...]
    """Units to load first."""
    threads: int
    """Number of threads."""
    cores: tuple[int, ...]
    """Core numbers."""


@dataclass(frozen=True, kw_only=True)
class LoadTrial:
    """Candidates to time one after another."""

    programs: tuple[LoadedProgram, ...]
    """Candidates; they stay loaded for later trials in the same process."""
    window_s: float
    """Time of one candidate if nothing else runs, seconds."""


def run_load_trial(trial: LoadTrial) -> list[tuple[float, int]]:
    """Time candidates, each on a thread of its own number of threads.

    Times are means, because a load delays some runs much more than others.

    Returns
    -------
    list
        Mean time of a run in microseconds, and number of runs, of each candidate.
    """
    return [
        _pool(one.threads).submit(_time, one, trial.window_s).result() for one in trial.programs
    ]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Thread that runs all candidates of one number of threads."""
    return ThreadPoolExecutor(1, f"layoutsel-{threads}", initializer=load_tvm_runtime)


def _time(one: LoadedProgram, window_s: float) -> tuple[float, int]:
    os.sched_setaffinity(0, one.cores)  # of this thread, before OpenMP starts further ones
    for unit in one.units:
        missing(unit)
    set_threads(one.threads, one.cores)
    candidate = _loaded(one.folder, one.program)
    number = _runs(one.folder, one.program, window_s)
    part = -(-number // _PARTS)
    taken_s, done = 0.0, 0
    while done < number and taken_s < _MOST_WINDOWS * window_s:
        taken_s += candidate.seconds(part) * part
        done += part
    return 1e6 * taken_s / done / candidate.copies, done * candidate.copies


@cache
def _loaded(folder: Path, program: ProgramEntry) -> LoadedCandidate:
    return load_program(folder, program)


@cache
def _runs(folder: Path, program: ProgramEntry, window_s: float) -> int:
    """Number of runs that fill the window, as first timed; equal in all later trials."""
    candidate = _loaded(folder, program)
    candidate.run()
    return max(1, min(_MOST_RUNS, int(window_s / max(candidate.seconds(1), 1e-6))))
