"""Compiled models: called on numpy arrays, saved to one file, loaded without planning."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm_ffi

from layoutsel.device.artifact_header import check_name, devices_of
from layoutsel.device.device_errors import (
    FailureLocation,
    Watch,
    check_not_forked,
    device_error,
    located,
)
from layoutsel.device.entry_points import Program, entries_of
from layoutsel.device.own_threads import OwnThreads
from layoutsel.device.ownership import Ownership
from layoutsel.device.signature import Signature
from layoutsel.device.stage_caller import StageCaller
from layoutsel.device.virtual_machine import synchronise, virtual_machine
from layoutsel.errors import DeviceError
from layoutsel.runtime import artifact
from layoutsel.runtime.arrays import placed, to_array, to_tensor
from layoutsel.runtime.binding import bind
from layoutsel.runtime.linking import export_library
from layoutsel.runtime.stages import StageWorker
from layoutsel.runtime.trace import Event, trace
from tvm_passes.devices import HOST, DeviceId
from tvm_passes.errors import LayoutselError

logger = logging.getLogger(__name__)


class CompiledModel:
    """A compiled model. Calls from several threads are safe and run one after the other.

    It computes on its own threads, and leaves the caller's thread count and affinity unchanged. A
    forked process can continue to use it; a fork waits for active calls. After a device failure,
    the fallback model of host units, if any, repeats the failed call and answers all later ones.

    Parameters
    ----------
    module
        The runnable module.
    weights
        Weights, in the order of the tuple that is the last argument of `main`.
    header
        Header of the artifact: signatures, plan, checks, provenance.
    source
        The artifact that it was loaded from.
    executable
        Module that :meth:`save` exports if there is no `source`; `module` may be linked already.
    fallback
        Makes the model of host units that takes over after a device failure.
    batches
        Open the models of the same network for several samples at once, by number of samples.

    Raises
    ------
    DeviceError
        If a device has too little memory for the weights.
    """

    def __init__(
        self,
        module: tvm_ffi.Module,
        weights: Sequence[np.ndarray],
        header: dict[str, Any],
        source: Path | None = None,
        executable: Any = None,
        fallback: Callable[[], CompiledModel] | None = None,
        batches: Mapping[int, Callable[[], CompiledModel]] | None = None,
    ) -> None:
        self.header = header
        self.inputs = tuple(Signature.read(entry) for entry in header["inputs"])
        self.outputs = tuple(Signature.read(entry) for entry in header["outputs"])
        self.threads = int(header["threads"])
        self.source = source
        self._module = module
        self._executable = module if executable is None else executable
        self._fallback = fallback
        self._openers = batches or {}
        self._batches: Mapping[int, CompiledModel] | None = None
        self._successor: CompiledModel | None = None
        self._arrays = tuple(weights)
        self._devices = devices_of(header)
        uploaded = self._uploaded()
        places = zip(uploaded, self._places, strict=True)
        self._ownership = Ownership(weight for weight, place in places if place.is_host)
        self.stages = entries_of(header, len(uploaded))
        self._program = Program(
            module=module,
            devices=self._devices,
            entries=self.stages,
            weights=uploaded,
            ownership=self._ownership,
            calls=header.get("calls", ()),
            subgraphs=header.get("plan", {}).get("subgraphs", ()),
        )
        self._machine = virtual_machine(module, self._devices)
        self._main = self._program.whole(self._machine, repeats=True)
        self.own_threads = OwnThreads(self.threads)

    @property
    def plan(self) -> Mapping[str, Any]:
        """The built plan, as JSON data."""
        return self.header["plan"]

    @property
    def uses_devices(self) -> bool:
        """True if the model needs a device other than the host."""
        return any(not device.is_host for device in self._devices)

    @property
    def running(self) -> CompiledModel:
        """Model that answers calls: this one, or its fallback after a device failure."""
        return self._successor or self

    @property
    def checks(self) -> Sequence[Mapping[str, Any]]:
        """Results of the verification at compile time."""
        return self.header.get("checks", [])

    def __call__(
        self, /, *arguments: np.ndarray, **named: np.ndarray
    ) -> np.ndarray | tuple[np.ndarray, ...]:
        """Run on inputs by position or by name; returns one array, or a tuple in model order.

        The results belong to the caller. A result that would share memory with an input, a weight
        or another result is copied.

        Raises
        ------
        InputError
            If an input is missing, unknown, of another shape or element type, or holds an index
            out of range.
        DeviceError
            If a device fails and there is no fallback.
        ForkedError
            If another thread ran a call when this process was forked, and did not end in time.
        """
        results = self.run_all(bind(self.inputs, arguments, named))[: len(self.outputs)]
        return results[0] if len(results) == 1 else tuple(results)

    def run_all(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run on checked inputs; outputs for verification alone come last in the results."""
        return [to_array(tensor) for tensor in self.own_threads.run(self._results, inputs)]

    def _results(self, inputs: Sequence[np.ndarray]) -> list[tvm_ffi.Tensor]:
        tensors = [to_tensor(value) for value in inputs]
        result = self._answer(tensors)
        return self.running._ownership.own(tensors, result)

    def _answer(self, tensors: Sequence[tvm_ffi.Tensor]) -> Any:
        """Results of `main`, or of the fallback's after a device failure."""
        if self._successor is None:
            try:
                return self._call(self._main, tensors)
            except DeviceError as error:
                if self._fallback is None:
                    raise
                logger.warning("%s; the fallback model of host units takes over", error.what)
                self._successor = self._fallback()
                self._successor.own_threads = self.own_threads
                # The device's memory is not freed, as that may fail as well.
        return self._successor._answer(tensors)

    def _call(self, main: Callable[..., Any], tensors: Sequence[tvm_ffi.Tensor]) -> Any:
        check_not_forked(self._devices)
        try:
            return main(*tensors)
        except Exception as error:
            failure = self._device_error(error, tensors)
            if failure is None:
                raise
            raise failure from error

    def _device_error(
        self, error: Exception, tensors: Sequence[tvm_ffi.Tensor]
    ) -> DeviceError | None:
        """Device error that names the sub-graph, found by a second run; None if the host failed."""
        if not self.uses_devices:
            return None

        def run(watch: Watch) -> None:
            self._instrumented(watch)(*tensors)

        place = located(error, run, self.header.get("calls", ()), self._devices)
        return device_error(error, place, self.plan["subgraphs"]) if place else None

    def _instrumented(self, instrument: Callable[..., None]) -> Callable[..., Any]:
        """Function that computes the whole model on a new, instrumented virtual machine."""
        machine = virtual_machine(self._module, self._devices)
        machine["set_instrument"](instrument)
        return self._program.whole(machine)

    def _uploaded(self) -> list[tvm_ffi.Tensor]:
        """Weights on the devices of their consumers."""
        readers = self.header.get("readers") or [""] * len(self._arrays)
        weights = zip(self._arrays, self._places, readers, strict=True)
        return [self._placed(*each) for each in weights]

    @property
    def _places(self) -> Sequence[DeviceId]:
        """Devices that hold the weights."""
        named = self.header.get("places") or [HOST] * len(self._arrays)
        return tuple(map(DeviceId.named, named))

    def _placed(self, weight: np.ndarray, device: DeviceId, reader: str) -> tvm_ffi.Tensor:
        tensor = to_tensor(weight)
        try:
            return placed(tensor, device)
        except Exception as error:
            labels = (reader,) if reader else ()
            place = FailureLocation(device=device, labels=labels, asked_bytes=weight.nbytes)
            raise device_error(error, place, self.plan["subgraphs"]) from error

    @property
    def has_fallback(self) -> bool:
        """True if a model of host units takes over after a device failure."""
        return self._fallback is not None

    @property
    def fallback(self) -> CompiledModel | None:
        """Model of host units for the time after a device failure, opened now; None if none."""
        return None if self._fallback is None else self._fallback()

    def fall_back_to(self, other: CompiledModel) -> None:
        """Set `other`, a model of host units, as the fallback after a device failure."""
        self._fallback = lambda: other
        self.header["fallback"] = other.header

    @property
    def batches(self) -> Mapping[int, CompiledModel]:
        """Models for several samples at once, by number of samples; opened on first use."""
        if self._batches is None:
            self._batches = {size: opened() for size, opened in self._openers.items()}
        return self._batches

    def batch_with(self, batches: Mapping[int, CompiledModel]) -> None:
        """Set the models for several samples at once, by number of samples; saved with this one."""
        self._batches = batches
        self.header["batches"] = {str(size): one.header for size, one in batches.items()}

    def bind(self, /, *arguments: np.ndarray, **named: np.ndarray) -> list[np.ndarray]:
        """Check inputs, order them as the model does, and make them contiguous."""
        return bind(self.inputs, arguments, named)

    def timed_call(self, inputs: Sequence[np.ndarray]) -> Any:
        """Function without arguments that runs once on `inputs`, for timing loops."""
        tensors = [to_tensor(value) for value in inputs]
        return lambda: self.own_threads.run(self._answer, tensors)

    def trace(self, inputs: Sequence[np.ndarray], runs: int = 1) -> list[Event]:
        """Run on checked inputs; returns start and duration of every sub-graph and transform."""
        return trace(self.running, inputs, runs)

    def instrumented_call(
        self, inputs: Sequence[np.ndarray], instrument: Callable[..., None]
    ) -> Callable[[], float]:
        """Function that runs once on its own virtual machine and returns the microseconds.

        Parameters
        ----------
        inputs
            Checked inputs.
        instrument
            Called before and after each call of the machine, with (function, name, True if before
            the call, result, arguments...). Its own time is part of the result.
        """
        main = self._instrumented(instrument)
        tensors = [to_tensor(value) for value in inputs]

        def call() -> float:
            start = time.perf_counter()
            self._call(main, tensors)
            return 1e6 * (time.perf_counter() - start)

        return lambda: self.own_threads.run(call)

    def worker(self, **settings: Any) -> StageWorker:
        """Make a worker with its own threads for stages of this model.

        Parameters
        ----------
        **settings
            Settings of :class:`~layoutsel.device.stage_worker.TensorWorker`: `threads`, `cores`,
            `limit_s`, `in_flight`.
        """
        return StageWorker(self._program, **settings)

    def caller(self, *, threads: int = 1, is_watched: bool = False) -> StageCaller:
        """Make a :class:`StageCaller`, which runs stages of this model on the calling thread."""
        return StageCaller(self._program, threads=threads, is_watched=is_watched)

    def synchronise(self) -> None:
        """Wait until devices other than the host have finished their work."""
        synchronise(self._devices)

    def modules(self) -> Iterator[tvm_ffi.Module]:
        """All runtime modules of the model."""
        waiting = [self._module]
        while waiting:
            module = waiting.pop()
            yield module
            waiting.extend(module.imports)

    def save(self, path: str | Path) -> Path:
        """Write the artifact: one file with code, weights, plan, checks and provenance.

        Raises
        ------
        WriteError
            If the file cannot be written.
        ArtifactError
            If its name does not end in ``.so``.
        LayoutselError
            If no C++ compiler is installed, which links the file.
        """
        path = Path(path)
        check_name(path)
        if self.source is not None:
            artifact.copy(self.source, path)
            return path
        if not any(shutil.which(tool) for tool in ("g++", "clang++", "c++")):
            raise LayoutselError(
                "saving links a shared library: got no C++ compiler on PATH; expected g++ or "
                "clang++. "
                "Install one (Debian: g++), or run the model in this process"
            )
        with tempfile.TemporaryDirectory() as folder:
            model = self._exported(Path(folder) / "library.so")
            fallback = None
            if self._fallback is not None:
                fallback = self._fallback()._exported(Path(folder) / "fallback.so")
            batches = {
                size: one._exported(Path(folder) / f"batch{size}.so")
                for size, one in self.batches.items()
            }
            artifact.write(path, model, fallback, batches)
        return path

    def _exported(self, library: Path) -> artifact.ArtifactPart:
        export_library(self._executable, library)
        return artifact.ArtifactPart(library=library, weights=self._arrays, header=self.header)
