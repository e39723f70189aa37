"""Functions of a compiled model that are called from outside: one for the whole, or one for each stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import tvm_ffi

from layoutsel.device.ownership import Ownership
from layoutsel.device.signature import Signature, ValueRange
from tvm_passes.devices import DeviceId

MAIN = "main"
_OUTPUT = "output."


@dataclass(frozen=True, kw_only=True)
class EntryPoint:
    """One stage's function in the virtual machine.

    Its tensors are named as in plans: ``input.1`` is input 1 of the model, ``output.0`` output 0, ``s3.0`` output 0 of
    sub-graph s3. The last are in the layout and element type that the plan chose for them.
    """

    name: str
    """Name of the stage."""
    function: str
    """Name of the function, which takes the inputs and then the tuple of all weights of the model."""
    inputs: tuple[Signature, ...]
    outputs: tuple[Signature, ...]

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> EntryPoint:
        """From an artifact's header."""
        return cls(
            name=entry["name"],
            function=entry["function"],
            inputs=tuple(Signature.read(one) for one in entry["inputs"]),
            outputs=tuple(Signature.read(one) for one in entry["outputs"]),
        )

    def to_json(self) -> dict[str, Any]:
        """For an artifact's header."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """Code and weights of a model, for virtual machines of any number."""

    module: tvm_ffi.Module
    devices: Sequence[DeviceId]
    """Devices that it runs on, in the module's own order."""
    entries: Sequence[EntryPoint]
    weights: Any
    """The tuple that every function takes after its inputs."""
    ownership: Ownership
    """Keeps results apart from inputs and weights."""
    calls: Sequence[Sequence[str]] = ()
    """What the stages call: the function, and the sub-graph or transform that it computes."""
    subgraphs: Sequence[Mapping[str, Any]] = ()
    """Those of the plan, as JSON data; errors of devices name them."""


def entries_of(header: Mapping[str, Any]) -> tuple[EntryPoint, ...]:
    """The stages of an artifact, in an order in which they can run; older artifacts are one stage, as most are."""
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
    """`entry` with the legal values of the model's inputs."""
    inputs = (replace(one, ranges=ranges.get(one.name, ())) for one in entry.inputs)
    return replace(entry, inputs=tuple(inputs))


def results_of(result: Any) -> list[tvm_ffi.Tensor]:
    """The tensors that a function of the virtual machine gives: one, or a tuple."""
    return [result] if isinstance(result, tvm_ffi.Tensor) else list(result)


def whole(machine: tvm_ffi.Module, entries: Sequence[EntryPoint]) -> Callable[..., Any]:
    """A function of a machine that computes the whole model: takes its inputs and the weights.

    Several stages run one after the other; tensors go from one to the next as they are.
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
    """Names of the results of the whole model, in order; those that are exposed for verification come last."""
    found = [one.name for entry in entries for one in entry.outputs if one.name.startswith(_OUTPUT)]
    return [f"{_OUTPUT}{index}" for index in range(len(found))]
