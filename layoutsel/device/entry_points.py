"""Entry points of a compiled model: one function for the whole model or one per stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import tvm_ffi

from layoutsel.device.ownership import Ownership
from layoutsel.device.signature import Signature, ValueRange
from tvm_passes.devices import DeviceId

MAIN = "main"
"""Name of the function that computes the whole model."""
_OUTPUT = "output."
"""Start of the names of the model's outputs."""


@dataclass(frozen=True, kw_only=True)
class EntryPoint:
    """Function of one stage in the virtual machine.

    Tensors have the names of a plan: ``input.1`` is input 1 of the model, ``output.0`` is output 0,
    ``head.0`` is output 0 of sub-graph ``head``. Tensors of sub-graphs have the layout and element
    type that the plan chose.
    """

    name: str
    """Name of the stage."""
    function: str
    """Name of the function; its arguments are the inputs and the tuple of all weights."""
    inputs: tuple[Signature, ...]
    """Inputs of the stage, in order."""
    outputs: tuple[Signature, ...]
    """Outputs of the stage, in order."""

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> EntryPoint:
        """Read an entry point of an artifact's header."""
        return cls(
            name=entry["name"],
            function=entry["function"],
            inputs=tuple(Signature.read(one) for one in entry["inputs"]),
            outputs=tuple(Signature.read(one) for one in entry["outputs"]),
        )

    def to_json(self) -> dict[str, Any]:
        """Entry of an artifact's header."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """Code and weights of a model, which several virtual machines may share."""

    module: tvm_ffi.Module
    """Loaded module with the code."""
    devices: Sequence[DeviceId]
    """Devices, in the module's numbering."""
    entries: Sequence[EntryPoint]
    """Entry points, in a valid execution order."""
    weights: Any
    """Tuple of weights, the last argument of every function."""
    ownership: Ownership
    """Copies results that share memory with inputs or weights."""
    calls: Sequence[Sequence[str]] = ()
    """Calls of the stages: function name, and the sub-graph or transform that it computes."""
    subgraphs: Sequence[Mapping[str, Any]] = ()
    """Sub-graphs of the plan, as JSON data, for messages about device errors."""


def entries_of(header: Mapping[str, Any]) -> tuple[EntryPoint, ...]:
    """Stages of an artifact, in a valid execution order; one if the header lists none."""
    if header.get("stages"):
        inputs = [Signature.read(entry) for entry in header["inputs"]]
        ranges = {f"input.{index}": one.ranges for index, one in enumerate(inputs)}
        return tuple(_with_ranges(EntryPoint.read(entry), ranges) for entry in header["stages"])
    given, made = (
        tuple(
            Signature(name=f"{kind}.{index}", shape=one.shape, dtype=one.dtype, ranges=one.ranges)
            for index, one in enumerate(map(Signature.read, header[f"{kind}s"]))
        )
        for kind in ("input", "output")
    )
    return (EntryPoint(name=MAIN, function=MAIN, inputs=given, outputs=made),)


def _with_ranges(entry: EntryPoint, ranges: Mapping[str, tuple[ValueRange, ...]]) -> EntryPoint:
    """Copy an entry point with the legal values of the model's inputs."""
    inputs = (replace(one, ranges=ranges.get(one.name, ())) for one in entry.inputs)
    return replace(entry, inputs=tuple(inputs))


def results_of(result: Any) -> list[tvm_ffi.Tensor]:
    """Result of a function of the virtual machine as a list: one tensor, or the tuple's."""
    return [result] if isinstance(result, tvm_ffi.Tensor) else list(result)


def whole(machine: tvm_ffi.Module, entries: Sequence[EntryPoint]) -> Callable[..., Any]:
    """Make a function of inputs and weights that computes the whole model.

    Several stages run one after the other and pass their tensors on without copies.
    """
    if len(entries) == 1 and entries[0].function == MAIN:
        return machine[MAIN]
    functions = [(entry, machine[entry.function]) for entry in entries]
    results = result_names(entries)

    def run(*arguments: Any) -> list[tvm_ffi.Tensor]:
        *inputs, weights = arguments
        tensors = {f"input.{index}": tensor for index, tensor in enumerate(inputs)}
        for entry, function in functions:
            given = [tensors[one.name] for one in entry.inputs]
            names = [one.name for one in entry.outputs]
            tensors.update(zip(names, results_of(function(*given, weights)), strict=True))
        return [tensors[name] for name in results]

    return run


def result_names(entries: Sequence[EntryPoint]) -> list[str]:
    """Names of the whole model's results, in order; outputs for verification alone come last."""
    found = [one.name for entry in entries for one in entry.outputs if one.name.startswith(_OUTPUT)]
    return [f"{_OUTPUT}{index}" for index in range(len(found))]
