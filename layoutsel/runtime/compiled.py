"""A compiled model: called on numpy arrays, saved to one file, loaded without planning."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tvm_ffi

from layoutsel.ondevice.artifact_header import check_name
from layoutsel.ondevice.model import InputError
from layoutsel.ondevice.requirements import check_features, check_units
from layoutsel.ondevice.tensors import synchronise
from layoutsel.ondevice.virtual_machine import virtual_machine
from layoutsel.runtime import artifact
from layoutsel.runtime.arrays import placed, to_array, to_tensor
from layoutsel.runtime.signature import Signature
from layoutsel.runtime.threads import set_threads
from tvm_passes import onednn
from tvm_passes.devices import HOST
from tvm_passes.errors import LayoutselError
from tvm_passes.runtime_library import load_tvm_runtime

if TYPE_CHECKING:
    from layoutsel.runtime.trace import Event


class CompiledModel:
    """A model ready to run. Calls from several threads are safe: they run one after the other.

    Parameters
    ----------
    module
        The runnable module.
    weights
        In the order of the tuple that `main` takes behind its inputs.
    header
        What the artifact tells of itself: signatures, plan, checks, provenance.
    source
        The artifact that it was loaded from.
    executable
        What :meth:`save` exports where there is no `source`: `module` may be linked already.
    """

    def __init__(
        self,
        module: tvm_ffi.Module,
        weights: Sequence[np.ndarray],
        header: dict[str, Any],
        source: Path | None = None,
        executable: Any = None,
    ) -> None:
        self.header = header
        self.inputs = tuple(Signature.read(entry) for entry in header["inputs"])
        self.outputs = tuple(Signature.read(entry) for entry in header["outputs"])
        self.threads = int(header["threads"])
        self.source = source
        self._module = module
        self._executable = module if executable is None else executable
        self._arrays = tuple(weights)
        self._devices = tuple(header.get("devices", (HOST,)))
        places = header.get("places") or [HOST] * len(weights)
        self._weights = tvm_ffi.convert(
            [placed(to_tensor(w), place) for w, place in zip(weights, places, strict=True)]
        )
        self._machine = virtual_machine(module, self._devices)
        self._main = self._machine["main"]
        self._lock = threading.Lock()

    @property
    def plan(self) -> Mapping[str, Any]:
        """The plan that was built, as JSON data."""
        return self.header["plan"]

    @property
    def checks(self) -> Sequence[Mapping[str, Any]]:
        """What was verified before the model was handed over."""
        return self.header.get("checks", [])

    def __call__(
        self, /, *arguments: np.ndarray, **named: np.ndarray
    ) -> np.ndarray | tuple[np.ndarray, ...]:
        """Run on inputs given by position or by name; one array, or a tuple of them in the model's order.

        Raises
        ------
        InputError
            If an input is missing, unknown, or of another shape or element type.
        """
        results = self.run_all(_bind(self.inputs, arguments, named))[: len(self.outputs)]
        return results[0] if len(results) == 1 else tuple(results)

    def run_all(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run on checked inputs; the results, and behind them what is exposed for verification only."""
        with self._lock:
            set_threads(self.threads)
            result = self._main(*[to_tensor(value) for value in inputs], self._weights)
            tensors = [result] if isinstance(result, tvm_ffi.Tensor) else list(result)
            return [to_array(tensor) for tensor in tensors]

    def bind(self, /, *arguments: np.ndarray, **named: np.ndarray) -> list[np.ndarray]:
        """Inputs in the model's order, checked and contiguous."""
        return _bind(self.inputs, arguments, named)

    def timed_call(self, inputs: Sequence[np.ndarray]) -> Any:
        """A zero-argument function that runs the model once on `inputs`, for timing loops."""
        tensors = [to_tensor(value) for value in inputs]
        set_threads(self.threads)
        return lambda: self._main(*tensors, self._weights)

    def trace(self, inputs: Sequence[np.ndarray], runs: int = 1) -> list[Event]:
        """Run on checked inputs and tell when every sub-graph and transform began and how long it took."""
        from layoutsel.runtime.trace import trace

        return trace(self, inputs, runs)

    def instrumented_call(
        self, inputs: Sequence[np.ndarray], instrument: Callable[..., None]
    ) -> Callable[[], float]:
        """Make a function that runs once, on a virtual machine of its own, and returns how many microseconds that took.

        Parameters
        ----------
        inputs
            Checked inputs.
        instrument
            Called around every call that the machine makes, with (function, name, whether before the call, result,
            arguments...); what it takes counts.
        """
        machine = virtual_machine(self._module, self._devices)
        machine["set_instrument"](instrument)
        main, tensors = machine["main"], [to_tensor(value) for value in inputs]

        def call() -> float:
            with self._lock:
                set_threads(self.threads)
                start = time.perf_counter()
                main(*tensors, self._weights)
                return 1e6 * (time.perf_counter() - start)

        return call

    def synchronise(self) -> None:
        """Wait for what runs on devices beside the host."""
        for kind in self._devices:
            synchronise(kind)

    def modules(self) -> Iterator[tvm_ffi.Module]:
        """The runtime modules that it consists of."""
        waiting = [self._module]
        while waiting:
            module = waiting.pop()
            yield module
            waiting.extend(module.imports)

    def save(self, path: str | Path) -> Path:
        """Write the artifact: one file with code, weights, plan, checks and provenance.

        Raises
        ------
        ArtifactError
            If the file cannot be written, or its name does not end in ``.so``.
        LayoutselError
            If no linker (a C++ compiler) is at hand.
        """
        path = Path(path)
        check_name(path)
        if self.source is not None:
            artifact.copy(self.source, path)
            return path
        if not any(shutil.which(tool) for tool in ("g++", "clang++", "c++")):
            raise LayoutselError(
                "saving links a shared library: got no C++ compiler on PATH; expected g++ or clang++. "
                "Install one (Debian: g++), or run the model in this process"
            )
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "library.so"
            self._executable.export_library(str(library))
            artifact.write(path, library, self._arrays, self.header)
        return path


def load(path: str | Path) -> CompiledModel:
    """Open a saved model, in any process; nothing is planned or compiled.

    Raises
    ------
    ArtifactError
        If the file is missing, none of ours or damaged.
    UnitUnavailable
        If this machine lacks an instruction set or a unit that the artifact was built for.
    """
    path = Path(path)
    opened = artifact.read(path)
    check_name(path)
    _check_machine(path, opened.header)
    load_tvm_runtime()
    onednn.available()  # its thread pool, where there is one, must be in place before kernels are loaded
    module = tvm_ffi.load_module(str(path.resolve()))
    return CompiledModel(module, opened.weights, dict(opened.header), path)


def _check_machine(path: Path, header: Mapping[str, Any]) -> None:
    check_features(str(path), header.get("features", ()))
    check_units(str(path), header.get("units", ()))


def _bind(
    signatures: Sequence[Signature],
    arguments: Sequence[np.ndarray],
    named: Mapping[str, np.ndarray],
) -> list[np.ndarray]:
    names = [signature.name for signature in signatures]
    if len(arguments) > len(names):
        raise InputError(f"got {len(arguments)} inputs; expected {len(names)}: {', '.join(names)}")
    given = dict(zip(names, arguments, strict=False))
    for name, value in named.items():
        if name not in names or name in given:
            problem = "given twice" if name in given else "unknown"
            raise InputError(f"input {name!r} is {problem}; the model takes {', '.join(names)}")
        given[name] = value
    bound = []
    for signature in signatures:
        if signature.name not in given:
            raise InputError(
                f"input {signature.name!r} is missing: expected {signature.dtype} of shape {signature.shape}"
            )
        value = np.asarray(given[signature.name])
        if value.shape != signature.shape or str(value.dtype) != signature.dtype:
            raise InputError(
                f"input {signature.name!r}: got {value.dtype} of shape {value.shape}; "
                f"expected {signature.dtype} of shape {signature.shape}"
            )
        bound.append(np.ascontiguousarray(value).reshape(value.shape))  # NumPy makes scalars 1-d
    return bound
