"""Recording of candidates under loads, in turns with an idle machine."""

from __future__ import annotations

import datetime
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from layoutsel.core.workload import Workload
from layoutsel.cost.conditions import Conditions
from layoutsel.cost.peaks import machine_peaks
from layoutsel.cost.samples import LoadSample, MachineProfile, Provenance
from layoutsel.device.archive import Bundle
from layoutsel.device.core_load import COMPUTE, MEMORY, BusyProcess, CoreLoad
from layoutsel.device.load_generators import generating
from layoutsel.device.load_timing import LoadedProgram, LoadTrial
from layoutsel.device.machine import this_machine
from layoutsel.device.manifest import CandidateEntry
from layoutsel.device.outcome import Failure
from layoutsel.device.threads import available_cores
from layoutsel.device.worker import Worker
from tvm_passes.decision import Decision
from tvm_passes.errors import LayoutselError

_IDLE, _IDLE_EVERY = "idle", 4
"""Name of the state without load, and number of loads between two timings of it."""
TURNS = 2
"""Number of turns; in each, every candidate is timed under every load and without load."""
_SLOWDOWN = 2.5
"""Expected mean slowdown, for dividing the budget."""
_LEAST_SLOWDOWN = 0.9
"""Lowest plausible time under a load, relative to the time without: 1 less noise."""
_START_S = 60.0
"""Additional time limit of a turn, for loading the candidates, seconds."""
_LIMIT = 20
"""Time limit of a turn under one load, relative to its share of the budget."""


def loads(cores: int) -> Mapping[str, tuple[BusyProcess, ...]]:
    """Name the loads to record on a machine with `cores` cores; those of two cores need two."""

    def one(core: int, kind: str, duty: float) -> BusyProcess:
        return BusyProcess(core=core, kind=kind, duty=duty)

    found = {
        "compute 25 %": (one(0, COMPUTE, 0.25),),
        "compute 50 %": (one(0, COMPUTE, 0.5),),
        "compute 75 %": (one(0, COMPUTE, 0.75),),
        "compute 100 %": (one(0, COMPUTE, 1.0),),
        "memory 50 %": (one(0, MEMORY, 0.5),),
        "memory 100 %": (one(0, MEMORY, 1.0),),
        "compute 2 x 100 %": (one(0, COMPUTE, 1.0), one(1, COMPUTE, 1.0)),
        "compute 50 %, memory 100 %": (one(0, COMPUTE, 0.5), one(1, MEMORY, 1.0)),
    }
    return MappingProxyType(
        {name: some for name, some in found.items() if max(p.core for p in some) < cores}
    )


@dataclass(frozen=True)
class _Asked:
    """A candidate on some cores."""

    bundle: Bundle
    """Unpacked bundle."""
    entry: CandidateEntry
    """Candidate."""
    cores: tuple[int, ...]
    """Positions of the cores."""

    def program(self, numbers: Sequence[int]) -> LoadedProgram:
        """Make the program to time; `numbers` are the numbers of all cores."""
        requires = self.bundle.manifest.requires
        return LoadedProgram(
            folder=self.bundle.folder,
            program=self.entry.program,
            units=requires.units,
            threads=requires.threads,
            cores=tuple(numbers[core] for core in self.cores),
        )


def record_loads(
    bundles: Sequence[Bundle],
    *,
    budget_s: float,
    turns: int = TURNS,
    on_turn: Callable[[int, str, float], None] = lambda _turn, _load, _seconds: None,
) -> tuple[LoadSample, ...]:
    """Time all candidates of some bundles under :func:`loads` and without load, in turns.

    Candidates of fewer threads than cores are timed on the first and on the last cores, so that a
    load meets them in one place and not in the other.

    Parameters
    ----------
    bundles
        Bundles of :func:`layoutsel.bundling.load_candidates.write_load_candidates`.
    budget_s
        Approximate time of all timings, seconds.
    turns
        Number of turns.
    on_turn
        Called after each load of a turn with the turn, the load's name and the seconds it took.

    Raises
    ------
    LayoutselError
        If a process cannot start or does not answer in time, or there is nothing to time.
    """
    numbers = available_cores()
    asked = list(_places(bundles, len(numbers)))
    if not asked:
        raise LayoutselError("nothing to time under load: the bundles have no candidates")
    made = loads(len(numbers))
    states = _with_idle(made)
    share_s = budget_s / (turns * len(states))
    trial = LoadTrial(
        programs=tuple(one.program(numbers) for one in asked),
        window_s=share_s / len(asked) / _SLOWDOWN,
    )
    limit_s = _LIMIT * share_s + _START_S
    times: dict[tuple[int, str], list[tuple[float, int]]] = defaultdict(list)
    with Worker("layoutsel.device.load_timing:run_load_trial", time_limit_s=limit_s) as worker:
        _answer(worker, trial)  # loads the candidates
        for turn in range(turns):
            for name in states:
                started_s = time.monotonic()
                with generating(made.get(name, ()), limit_s=limit_s, cores=numbers):
                    answer = _answer(worker, trial)
                for number, timed in enumerate(answer):
                    times[number, name].append(timed)
                on_turn(turn, name, time.monotonic() - started_s)
    profiles = {
        count: MachineProfile(machine=this_machine(), peaks=machine_peaks(count))
        for count in sorted({one.bundle.manifest.requires.threads for one in asked})
    }
    return tuple(
        _sample(
            one,
            profiles,
            CoreLoad.of(some, len(numbers)),
            times[number, name],
            times[number, _IDLE],
        )
        for number, one in enumerate(asked)
        for name, some in made.items()
    )


def undisturbed(samples: Iterable[LoadSample]) -> tuple[LoadSample, ...]:
    """Drop candidates that were faster under a load than without: something disturbed the latter.

    Load makes no run faster, so their time without load, and all their slowdowns, are wrong.
    """
    groups: dict[tuple[str, str, Decision, tuple[int, ...]], list[LoadSample]] = defaultdict(list)
    for one in samples:
        groups[one.model, one.workload.key, one.decision, one.conditions.cores].append(one)
    return tuple(
        one
        for group in groups.values()
        if min(some.us / some.idle_us for some in group) >= _LEAST_SLOWDOWN
        for one in group
    )


def _with_idle(names: Iterable[str]) -> list[str]:
    """Put the idle state in front of every fourth load."""
    found: list[str] = []
    for position, name in enumerate(names):
        found += [name] if position % _IDLE_EVERY else [_IDLE, name]
    return found


def _places(bundles: Sequence[Bundle], cores: int) -> Iterator[_Asked]:
    for bundle in bundles:
        threads = min(bundle.manifest.requires.threads, cores)
        first, last = tuple(range(threads)), tuple(range(cores - threads, cores))
        for entry in bundle.manifest.candidates:
            for place in dict.fromkeys((first, last)):
                yield _Asked(bundle, entry, place)


def _answer(worker: Worker, trial: LoadTrial) -> list[tuple[float, int]]:
    reply = worker.call(trial)
    if isinstance(reply, Failure):
        raise LayoutselError(f"cannot time under load: {reply.reason}")
    found: list[tuple[float, int]] = reply.value
    return found


def _sample(
    one: _Asked,
    profiles: Mapping[int, MachineProfile],
    load: CoreLoad,
    loaded: Sequence[tuple[float, int]],
    idle: Sequence[tuple[float, int]],
) -> LoadSample:
    manifest = one.bundle.manifest
    times_us = [us for us, _ in loaded]
    works: dict[str, Workload] = {work.key: work for work in manifest.workloads}
    threads = manifest.requires.threads
    return LoadSample(
        model=manifest.model,
        workload=works[one.entry.key.partition("+")[0]],
        decision=one.entry.decision,
        conditions=Conditions(threads=threads, cores=one.cores, load=load),
        us=statistics.fmean(times_us),
        spread_us=statistics.stdev(times_us) / len(times_us) ** 0.5 if len(times_us) > 1 else 0.0,
        idle_us=statistics.median(us for us, _ in idle),
        runs=sum(runs for _, runs in loaded),
        provenance=Provenance(
            profile=profiles[threads],
            versions=manifest.requires.versions,
            date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        ),
    )
