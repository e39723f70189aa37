"""Entry points of a compiled model: one function for the whole model or one per stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import tvm_ffi
from tvm_ffi._ffi_api import ArrayGetItem

from layoutsel.device.chain_slots import ChainSlots, chain_slots
from layoutsel.device.ownership import Ownership
from layoutsel.device.signature import Signature, ValueRange
from layoutsel.device.threads import shares_openmp
from layoutsel.device.virtual_machine import virtual_machine
from tvm_passes.devices import DeviceId
from tvm_passes.errors import LayoutselError
from tvm_passes.onednn.plugin import function as plugin

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
    """Name of the function; its arguments are the inputs and the tuple of its weights."""
    inputs: tuple[Signature, ...]
    """Inputs of the stage, in order."""
    outputs: tuple[Signature, ...]
    """Outputs of the stage, in order."""
    weights: tuple[int, ...] = ()
    """Indices of its weights among those of the model."""

    @classmethod
    def read(cls, entry: Mapping[str, Any], weights: int) -> EntryPoint:
        """Read an entry point of an artifact's header with that number of weights.

        In older headers, every function takes all weights.
        """
        return cls(
            name=entry["name"],
            function=entry["function"],
            inputs=tuple(Signature.read(one) for one in entry["inputs"]),
            outputs=tuple(Signature.read(one) for one in entry["outputs"]),
            weights=tuple(entry.get("weights", range(weights))),
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
    weights: Sequence[tvm_ffi.Tensor]
    """Weights of the model, in order."""
    ownership: Ownership
    """Copies results that share memory with inputs or weights."""
    calls: Sequence[Sequence[str]] = ()
    """Calls of the stages: function name, and the sub-graph or transform that it computes."""
    subgraphs: Sequence[Mapping[str, Any]] = ()
    """Sub-graphs of the plan, as JSON data, for messages about device errors."""
    memory: object = None
    """Owner of the weights' memory, if they do not own it."""
    own_weights: Mapping[str, Any] = field(init=False)
    """Tuple of weights by function: its last argument."""

    def __post_init__(self) -> None:
        tuples = {
            entry.function: tvm_ffi.convert([self.weights[index] for index in entry.weights])
            for entry in self.entries
        }
        object.__setattr__(self, "own_weights", tuples)

    def whole(
        self, machine: tvm_ffi.Module, *, repeats: bool = False
    ) -> Callable[..., list[tvm_ffi.Tensor]]:
        """Make a function of the model's inputs that returns its results on `machine`.

        Outputs for verification alone come last. For `repeats` see :meth:`function`.
        """
        chain = StageChain.of(self.entries, range(len(self.entries)))
        outputs = tuple(sorted(chain.outputs, key=_number))
        run = self.function(machine, replace(chain, outputs=outputs), repeats=repeats)
        places = [_number(one) for one in chain.inputs]
        if places == list(range(len(places))):
            return run
        return lambda *inputs: run(*[inputs[place] for place in places])

    def function(
        self, machine: tvm_ffi.Module, chain: StageChain, *, repeats: bool = False
    ) -> Callable[..., list[tvm_ffi.Tensor]]:
        """Make a function of the inputs of `chain` that returns its results on `machine`.

        The stages pass tensors on without copies, and each is freed after its last use.

        Parameters
        ----------
        machine
            Virtual machine of this program.
        chain
            Stages.
        repeats
            True to record the first run, on a machine of its own, and to repeat its calls of
            kernels in later runs, without a machine. Models that use devices, and those with
            larger intermediates than ``cmake/onednn/recording.cc`` keeps, run on `machine`.
            Instruments of `machine` see no repeated run. Runs have to follow one another.
        """
        if repeats and shares_openmp() and all(device.is_host for device in self.devices):
            slots = chain.slots()
            run = plugin("layoutsel.chain")(
                *self.chain_parts(machine, chain.entries),
                *([tvm_ffi.Shape(one) for one in part] for part in slots.steps),
                slots.count,
                tvm_ffi.Shape(slots.kept),
            )
            return lambda *inputs: results_of(run(*inputs))
        if len(chain.entries) == 1:
            (only,) = chain.entries
            function, weights = machine[only.function], self.own_weights[only.function]
            return lambda *inputs: results_of(function(*inputs, weights))
        return self._on_machine(machine, chain)

    def chain_parts(
        self, machine: tvm_ffi.Module, entries: Sequence[EntryPoint]
    ) -> tuple[list[tvm_ffi.Function], list[tvm_ffi.Function], list[Any]]:
        """Parts of a chain of ``cmake/onednn/chain.h``: functions, recorded ones, weights."""
        recorder = virtual_machine(self.module, self.devices)
        recorder["set_instrument"](plugin("layoutsel.recording_instrument")())
        return (
            [machine[entry.function] for entry in entries],
            [recorder[entry.function] for entry in entries],
            [self.own_weights[entry.function] for entry in entries],
        )

    def _on_machine(
        self, machine: tvm_ffi.Module, chain: StageChain
    ) -> Callable[..., list[tvm_ffi.Tensor]]:
        slots = chain.slots()
        functions = [machine[entry.function] for entry in chain.entries]
        weights = [self.own_weights[entry.function] for entry in chain.entries]
        steps = list(zip(functions, weights, *slots.steps, strict=True))

        def run(*inputs: tvm_ffi.Tensor) -> list[tvm_ffi.Tensor]:
            values: list[Any] = [*inputs, *[None] * (slots.count - len(inputs))]
            for function, own, given, made, unused in steps:
                results = results_of(function(*[values[slot] for slot in given], own))
                for slot, value in zip(made, results, strict=True):
                    values[slot] = value
                for slot in unused:
                    values[slot] = None
            return [values[slot] for slot in slots.kept]

        return run


@dataclass(frozen=True, kw_only=True)
class StageChain:
    """Stages that run one after the other, as if they were one stage."""

    name: str
    """Name of the first stage, and of the last one if there are several."""
    entries: tuple[EntryPoint, ...]
    """Entry points of the stages, in order."""
    inputs: tuple[Signature, ...]
    """Tensors that the stages read and do not compute, in order of first use."""
    outputs: tuple[Signature, ...]
    """Outputs of the model, and tensors that other stages read."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the stages."""
        return tuple(entry.name for entry in self.entries)

    def slots(self) -> ChainSlots:
        """Number the tensors."""
        stages = [(entry.inputs, entry.outputs) for entry in self.entries]
        return chain_slots(self.inputs, self.outputs, stages)

    @classmethod
    def named(cls, entries: Sequence[EntryPoint], stages: Sequence[str]) -> StageChain:
        """Join stages of a model with these `entries` by name.

        Raises
        ------
        LayoutselError
            If a stage is unknown, or is not later than the one before it.
        """
        places = {entry.name: place for place, entry in enumerate(entries)}
        for name in stages:
            if name not in places:
                raise LayoutselError(
                    f"the model has no stage {name!r}; expected one of {', '.join(places)}"
                )
        numbers = [places[name] for name in stages]
        if not numbers or sorted(set(numbers)) != numbers:
            raise LayoutselError(
                f"got the stages {', '.join(stages) or 'none'}; expected one or more, each once, "
                f"in the model's order"
            )
        return cls.of(entries, numbers)

    @classmethod
    def of(cls, entries: Sequence[EntryPoint], numbers: Sequence[int]) -> StageChain:
        """Join those of all `entries` of a model that have these positions, in ascending order."""
        chosen = [entries[number] for number in numbers]
        others = [entry for number, entry in enumerate(entries) if number not in set(numbers)]
        made = {one.name: one for entry in chosen for one in entry.outputs}
        read = {one.name: one for entry in reversed(chosen) for one in reversed(entry.inputs)}
        wanted = {one.name for entry in others for one in entry.inputs}
        names = dict.fromkeys((chosen[0].name, chosen[-1].name))
        return cls(
            name="-".join(names),
            entries=tuple(chosen),
            inputs=tuple(one for one in reversed(read.values()) if one.name not in made),
            outputs=tuple(
                one for one in made.values() if one.name in wanted or one.name.startswith(_OUTPUT)
            ),
        )


def entries_of(header: Mapping[str, Any], weights: int) -> tuple[EntryPoint, ...]:
    """Stages of a model, in a valid execution order; one if the header lists none.

    Parameters
    ----------
    header
        Header of the model's artifact.
    weights
        Number of weights of the model.
    """
    if header.get("stages"):
        inputs = [Signature.read(entry) for entry in header["inputs"]]
        ranges = {f"input.{index}": one.ranges for index, one in enumerate(inputs)}
        stages = (EntryPoint.read(entry, weights) for entry in header["stages"])
        return tuple(_with_ranges(stage, ranges) for stage in stages)
    given, made = (
        tuple(
            Signature(name=f"{kind}.{index}", shape=one.shape, dtype=one.dtype, ranges=one.ranges)
            for index, one in enumerate(map(Signature.read, header[f"{kind}s"]))
        )
        for kind in ("input", "output")
    )
    own = tuple(range(weights))
    return (EntryPoint(name=MAIN, function=MAIN, inputs=given, outputs=made, weights=own),)


def _with_ranges(entry: EntryPoint, ranges: Mapping[str, tuple[ValueRange, ...]]) -> EntryPoint:
    """Copy an entry point with the legal values of the model's inputs."""
    inputs = (replace(one, ranges=ranges.get(one.name, ())) for one in entry.inputs)
    return replace(entry, inputs=tuple(inputs))


def _number(tensor: Signature) -> int:
    """Index of an input or output of the model."""
    return int(tensor.name.rpartition(".")[2])


def results_of(result: Any) -> list[tvm_ffi.Tensor]:
    """Result of a function of the virtual machine as a list: one tensor, or the tuple's."""
    if isinstance(result, tvm_ffi.Tensor):
        return [result]
    # A third of the time of iteration, which checks every index anew.
    return [ArrayGetItem(result, index) for index in range(len(result))]


def result_names(entries: Sequence[EntryPoint]) -> list[str]:
    """Names of the whole model's results, in order; outputs for verification alone come last."""
    found = [one.name for entry in entries for one in entry.outputs if one.name.startswith(_OUTPUT)]
    return [f"{_OUTPUT}{index}" for index in range(len(found))]
