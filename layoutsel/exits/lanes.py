"""Lanes of a multi-exit network: the stages of each worker, in order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layoutsel.device.entry_points import EntryPoint, StageChain
from layoutsel.exits.arrangement import Arrangement
from layoutsel.exits.scores import RESULTS
from tvm_passes.errors import LayoutselError

_STAGE = re.compile(r"(trunk|branch)(\d+)")
"""Name of a stage; see :meth:`layoutsel.exits.division.ExitDivision.stages`."""


@dataclass(frozen=True, kw_only=True)
class LaneStep:
    """A stage in its lane. Tensors of a request have numbers, and so have its signals."""

    number: int
    """Position of the stage in the model's order."""
    chain: StageChain
    """The stage."""
    reads: tuple[int, ...]
    """Tensors that it reads."""
    writes: tuple[int, ...]
    """Tensors that it computes."""
    frees: tuple[int, ...]
    """Tensors that nothing needs after it."""
    awaits: tuple[int, ...]
    """Signals of other lanes that it waits for."""
    signals: tuple[int, ...]
    """Signals that it gives at its end."""
    exits: tuple[int, ...]
    """Exits whose results are complete at its end."""


@dataclass(frozen=True, kw_only=True)
class Lane:
    """Stages of one worker, in order."""

    worker: str
    """Name of the worker."""
    steps: tuple[LaneStep, ...]
    """Its stages."""


@dataclass(frozen=True, kw_only=True)
class Lanes:
    """Stages of an arrangement by worker.

    All lanes follow the model's order, so that none waits for one that waits for it.
    """

    lanes: tuple[Lane, ...]
    """Lanes, that of the trunk first."""
    exits: tuple[int, ...]
    """Numbers of the exits that run, in order."""
    inputs: tuple[int, ...]
    """Numbers of the inputs of the model that the stages read, in the order of the tensors."""
    tensors: int
    """Number of tensors of a request; the inputs come first."""
    results: Mapping[int, tuple[int, ...]]
    """Tensors with the values of classes, score and class of each exit that runs."""
    ends: Mapping[int, int]
    """Last stage that each exit that runs needs."""
    waits: tuple[int, ...]
    """Stage that each signal starts."""


def lanes_of(entries: Sequence[EntryPoint], exits: int, arrangement: Arrangement) -> Lanes:
    """Assign the stages of a model to the workers of an arrangement.

    Parameters
    ----------
    entries
        Stages of the model, named as by :class:`~layoutsel.exits.division.ExitDivision`.
    exits
        Number of exits, the final one included.
    arrangement
        Workers of trunk and branches. Stages of exits that are off do not run.

    Raises
    ------
    LayoutselError
        If the model is not divided into trunk and branches, or an exit that runs reads a tensor of
        one that is off.
    """
    workers = {n: _worker(entry.name, arrangement) for n, entry in enumerate(entries)}
    used = {number: worker for number, worker in workers.items() if worker is not None}
    running = (*(e for e, w in enumerate(arrangement.branches) if w is not None), exits - 1)
    slots: dict[str, int] = {}
    for number in used:
        for one in entries[number].inputs:
            if one.name.startswith("input."):
                slots.setdefault(one.name, len(slots))
    inputs = tuple(int(name.rpartition(".")[2]) for name in slots)
    made: dict[str, int] = {}
    for number in used:
        for one in entries[number].outputs:
            slots.setdefault(one.name, len(slots))
            made[one.name] = number
    results = {e: [f"output.{RESULTS * e + k}" for k in range(RESULTS)] for e in running}
    _check(entries, used, made, results, arrangement)
    ends = {e: max(made[name] for name in names) for e, names in results.items()}
    kept = {name for names in results.values() for name in names}
    waits: list[int] = []
    awaits: dict[int, list[int]] = {number: [] for number in used}
    signals: dict[int, list[int]] = {number: [] for number in used}
    for number, worker in used.items():
        sources = {made[one.name] for one in entries[number].inputs if one.name in made}
        for source in sorted(sources):
            if used[source] != worker:
                awaits[number].append(len(waits))
                signals[source].append(len(waits))
                waits.append(number)
    steps = {
        number: LaneStep(
            number=number,
            chain=StageChain.of(entries, [number]),
            reads=tuple(slots[one.name] for one in entries[number].inputs),
            writes=tuple(slots[one.name] for one in entries[number].outputs),
            frees=tuple(slots[n] for n in _last_read(entries, used, number) if n not in kept),
            awaits=tuple(awaits[number]),
            signals=tuple(signals[number]),
            exits=tuple(e for e, end in ends.items() if end == number),
        )
        for number in used
    }
    names = dict.fromkeys((arrangement.trunk, *used.values()))
    return Lanes(
        lanes=tuple(
            Lane(worker=name, steps=tuple(steps[n] for n, w in used.items() if w == name))
            for name in names
        ),
        exits=running,
        inputs=inputs,
        tensors=len(slots),
        results={e: tuple(slots[name] for name in names) for e, names in results.items()},
        ends=ends,
        waits=tuple(waits),
    )


def _worker(stage: str, arrangement: Arrangement) -> str | None:
    """Return the worker of a stage; None if its exit is off."""
    match = _STAGE.fullmatch(stage)
    if match is None:
        raise LayoutselError(
            f"the model has a stage {stage!r}: expected trunk0, branch0, trunk1, …; "
            "compile it as a multi-exit network"
        )
    kind, index = match[1], int(match[2])
    return arrangement.trunk if kind == "trunk" else arrangement.branches[index]


def _last_read(entries: Sequence[EntryPoint], used: dict[int, str], number: int) -> tuple[str, ...]:
    """Tensors that a stage is the last to read, if only its own lane reads them."""
    found = []
    for one in entries[number].inputs:
        readers = [n for n in used if any(one.name == other.name for other in entries[n].inputs)]
        if readers[-1] == number and {used[n] for n in readers} == {used[number]}:
            found.append(one.name)
    return tuple(found)


def _check(
    entries: Sequence[EntryPoint],
    used: dict[int, str],
    made: dict[str, int],
    results: Mapping[int, Sequence[str]],
    arrangement: Arrangement,
) -> None:
    """Reject stages whose inputs, and exits whose results, are not computed."""
    for number in used:
        for one in entries[number].inputs:
            if not one.name.startswith("input.") and one.name not in made:
                raise LayoutselError(
                    f"stage {entries[number].name!r} reads {one.name}, which no stage that runs "
                    f"computes: got the branches {arrangement.branches}; expected a worker for "
                    "every branch that another one reads"
                )
    if absent := [name for names in results.values() for name in names if name not in made]:
        raise LayoutselError(
            f"no stage that runs computes {absent[0]}: expected values, score and class of every "
            "exit that runs. Compile the scored model of the network"
        )
