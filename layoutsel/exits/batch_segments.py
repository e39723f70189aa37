"""Segments of a network: its stages from one exit to the next, for one batch size."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tvm_ffi

from layoutsel.device.entry_points import EntryPoint, StageChain, results_of
from layoutsel.device.signature import Signature
from layoutsel.device.stage_caller import StageCaller
from layoutsel.device.threads import shares_openmp
from layoutsel.device.turns import came_through_fork
from layoutsel.errors import NoBatches
from layoutsel.exits.lanes import Lanes
from layoutsel.exits.scores import RESULTS
from layoutsel.runtime.arrays import dtype_of, to_array
from layoutsel.runtime.compiled import CompiledModel
from tvm_passes.onednn.plugin import function

Tensor: TypeAlias = tvm_ffi.Tensor
Values: TypeAlias = dict[str, Tensor]
"""Tensors by name."""
_INPUT = "input."
"""Start of the names of the model's inputs."""


class ExitRows(NamedTuple):
    """Results of an exit, a row for each sample."""

    exit: int
    """Number of the exit."""
    values: np.ndarray
    """Values of the classes, (size, classes); the caller owns them."""
    scores: Sequence[float]
    """Scores."""
    labels: Sequence[int]
    """Predicted classes."""


class SegmentPlan(NamedTuple):
    """Stages and results of a segment."""

    chain: StageChain
    """Stages."""
    exits: Sequence[int]
    """Exits whose results are complete at their end, in order."""
    needs: Sequence[str]
    """Names of earlier tensors that this segment or a later one reads."""


class ExitSegment:
    """Stages up to the results of an exit, or of several that are complete at once.

    Parameters
    ----------
    plan
        Its stages and results.
    caller
        Runs the stages.
    size
        Number of samples.
    """

    def __init__(self, plan: SegmentPlan, caller: StageCaller, size: int) -> None:
        chain = plan.chain
        self.needs = plan.needs
        """Names of earlier tensors that this segment or a later one reads."""
        self._reads, self._writes = _names(chain.inputs), _names(chain.outputs)
        self._inputs = [name for name in self._reads if name.startswith(_INPUT)]
        self._results = [(exit_, result_names(exit_)) for exit_ in plan.exits]
        self._caller = caller
        self._function = caller.function(chain)
        self._scores, self._labels = ctypes.c_float * size, ctypes.c_int64 * size

    def run(self, values: Values) -> list[ExitRows]:
        """Compute from tensors by name, add those that it computes, and return the results."""
        return self._caller.run(self._run, values)

    def _run(self, values: Values) -> list[ExitRows]:
        made = self._function(*[values[name] for name in self._reads])
        values.update(zip(self._writes, made, strict=True))
        inputs = [values[name] for name in self._inputs]
        return [
            ExitRows(
                exit_,
                to_array(self._caller.own(inputs, [values[classes]])[0]),
                self._scores.from_address(values[score].data_ptr())[:],
                self._labels.from_address(values[label].data_ptr())[:],
            )
            for exit_, (classes, score, label) in self._results
        ]


class NativeExitSegment(ExitSegment):
    """A segment in one call of the plugin; parameters are those of :class:`ExitSegment`."""

    def __init__(self, plan: SegmentPlan, caller: StageCaller, size: int) -> None:
        super().__init__(plan, caller, size)
        chain = plan.chain
        slots = chain.slots()
        places = dict(zip(self._writes, slots.kept, strict=True))
        known = {one.name: one for one in chain.outputs}
        self._rows: list[tuple[int, np.ndarray, Any, Any]] = []
        copies: list[int] = []
        for exit_, names in self._results:
            like = known[names[0]]
            rows = np.empty(like.shape, dtype_of(like.dtype)), self._scores(), self._labels()
            values, scores, labels = rows
            memory = (
                (values.ctypes.data, values.nbytes),
                (ctypes.addressof(scores), ctypes.sizeof(scores)),
                (ctypes.addressof(labels), ctypes.sizeof(labels)),
            )
            for name, (address, size_bytes) in zip(names, memory, strict=True):
                copies += [places[name], address, size_bytes]
            self._rows.append((exit_, *rows))
        self._native = function("layoutsel.exit_segment")(
            *caller.chain_parts(chain.entries),
            *([tvm_ffi.Shape(one) for one in part] for part in slots.steps),
            slots.count,
            tvm_ffi.Shape(slots.kept),
            tvm_ffi.Shape(tuple(copies)),
            caller.threads,
        )

    def run(self, values: Values) -> list[ExitRows]:
        """Compute from tensors by name, add those that it computes, and return the results."""
        if came_through_fork():
            return super().run(values)
        with self._caller.turn:
            made = results_of(self._native(*[values[name] for name in self._reads]))
            rows = [
                ExitRows(e, own.copy(), scores[:], labels[:])
                for e, own, scores, labels in self._rows
            ]
        values.update(zip(self._writes, made, strict=True))
        return rows


def in_segments(lanes: Lanes) -> list[tuple[tuple[int, ...], tuple[int, ...]]] | None:
    """Numbers of stages and exits of each segment, on a single worker.

    None if there are several workers, or the exits are not complete in their order.
    """
    if len(lanes.lanes) != 1:
        return None
    found = []
    stages: list[int] = []
    for step in lanes.lanes[0].steps:
        stages.append(step.number)
        if step.exits:
            found.append((tuple(stages), step.exits))
            stages = []
    in_order = tuple(exit_ for _, exits in found for exit_ in exits) == lanes.exits
    return found if in_order and not stages else None


def segments_of(
    entries: Sequence[EntryPoint],
    numbers: Sequence[tuple[tuple[int, ...], tuple[int, ...]]],
    caller: StageCaller,
    size: int,
) -> tuple[ExitSegment, ...]:
    """Make the segments of a model of one batch size.

    Parameters
    ----------
    entries
        Stages of the model.
    numbers
        Result of :func:`in_segments`.
    caller
        Runs the stages.
    size
        Number of samples.
    """
    kind = NativeExitSegment if shares_openmp() else ExitSegment
    chains = [StageChain.of(entries, stages) for stages, _ in numbers]
    reads = [_names(chain.inputs) for chain in chains]
    found = []
    for index, (chain, (_, exits)) in enumerate(zip(chains, numbers, strict=True)):
        known = {name for earlier in chains[:index] for name in _names(earlier.outputs)}
        later = dict.fromkeys(name for names in reads[index:] for name in names)
        needs = [name for name in later if name in known or name.startswith(_INPUT)]
        found.append(kind(SegmentPlan(chain, exits, needs), caller, size))
    return tuple(found)


def copy_rows(tensors: Sequence[tuple[Tensor, np.ndarray, Tensor]], rows: Sequence[int]) -> None:
    """Copy some rows of tensors to the first rows of others, given as array and tensor."""
    if shares_openmp():
        sources, targets = [one[0] for one in tensors], [one[2] for one in tensors]
        function("layoutsel.copy_rows")(sources, targets, tvm_ffi.Shape(tuple(rows)))
        return
    for source, array, _ in tensors:
        array[: len(rows)] = to_array(source)[list(rows)]


def result_names(exit_: int) -> tuple[str, str, str]:
    """Names of the values of the classes, the score and the predicted class of an exit."""
    values, score, label = (f"output.{RESULTS * exit_ + k}" for k in range(RESULTS))
    return values, score, label


def stages_as(single: CompiledModel, other: CompiledModel) -> tuple[EntryPoint, ...]:
    """Stages of a model of another batch size, whose tensors have the names of the first one's.

    Names depend on shapes; the order of the sub-graphs does not.
    """
    ids = [[one["id"] for one in model.plan["subgraphs"]] for model in (other, single)]
    own = dict(zip(*ids, strict=False))

    def renamed(tensors: Sequence[Signature]) -> tuple[Signature, ...]:
        parts = [one.name.rpartition(".") for one in tensors]
        names = [f"{own.get(id_, id_)}.{number}" for id_, _, number in parts]
        return tuple(replace(one, name=name) for one, name in zip(tensors, names, strict=True))

    return tuple(
        replace(entry, inputs=renamed(entry.inputs), outputs=renamed(entry.outputs))
        for entry in other.stages
    )


def check_rows(
    first: Sequence[EntryPoint], other: Sequence[EntryPoint], sizes: tuple[int, int]
) -> None:
    """Check that each tensor between stages has a row for each sample.

    Parameters
    ----------
    first, other
        Stages for two batch sizes.
    sizes
        Number of samples of both.

    Raises
    ------
    NoBatches
        If the stages differ, or a tensor has other rows or another layout.
    """
    names = [[one.name for one in stages] for stages in (first, other)]
    if names[0] != names[1]:
        raise NoBatches(
            f"the network for {sizes[1]} samples has the stages {', '.join(names[1])}: expected "
            f"those for {sizes[0]}, {', '.join(names[0])}"
        )
    known = _tensors(first)
    for name, one in _tensors(other).items():
        wanted = known.get(name)
        if wanted is None or _rows(wanted, sizes[0]) is None or (
            _rows(one, sizes[1]) != _rows(wanted, sizes[0])
        ):  # fmt: skip
            raise NoBatches(
                f"tensor {name} between stages: got {_text(one)} for {sizes[1]} samples, and "
                f"{_text(wanted) if wanted else 'none'} for {sizes[0]}; expected equal rows, one "
                "for each sample"
            )


def _rows(tensor: Signature, size: int) -> tuple[object, ...] | None:
    """Shape, type and layout of a row of a tensor; None if it has no row for each sample."""
    if tensor.shape[:1] != (size,):
        return None
    return tensor.shape[1:], tensor.dtype, tensor.layout


def _tensors(entries: Sequence[EntryPoint]) -> Mapping[str, Signature]:
    return {one.name: one for entry in entries for one in (*entry.inputs, *entry.outputs)}


def _names(tensors: Sequence[Signature]) -> tuple[str, ...]:
    return tuple(one.name for one in tensors)


def _text(tensor: Signature) -> str:
    return f"{tensor.dtype} of {tensor.shape} {tensor.layout}".rstrip()
