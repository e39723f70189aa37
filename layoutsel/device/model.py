"""Compiled models without numpy, called on tensors of any library that supports DLPack."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tvm_ffi

from layoutsel.device import archive
from layoutsel.device.archive import BundleError
from layoutsel.device.artifact_header import SUFFIX, devices_of, places_of, read_header
from layoutsel.device.artifact_parts import verify as verify_parts
from layoutsel.device.device_errors import check_not_forked
from layoutsel.device.entry_points import Program, entries_of
from layoutsel.device.own_threads import OwnThreads
from layoutsel.device.ownership import Ownership
from layoutsel.device.requirements import check, check_devices, check_features, check_units
from layoutsel.device.signature import Signature
from layoutsel.device.stage_worker import TensorWorker
from layoutsel.device.tensors import copied, elements_of, ends, tensor_at
from layoutsel.device.virtual_machine import load_library, virtual_machine
from layoutsel.device.worker_jobs import LIMIT_S
from layoutsel.errors import InputError
from tvm_passes.devices import HOST_DEVICE, DeviceId
from tvm_passes.onednn.plugin import available as load_thread_pool
from tvm_passes.runtime_library import load_tvm_runtime

ALIGNMENT = 64
"""Alignment of tensors that TVM's generated code assumes, bytes."""


class Model:
    """A loaded model. Calls from several threads are safe and run one after the other.

    It computes on its own threads, and leaves the caller's thread count and affinity unchanged.
    """

    def __init__(self, path: Path) -> None:
        """Load an artifact; raises the errors of :func:`load`."""
        header = read_header(path)
        check_features(str(path), header.get("features", ()))
        check_units(str(path), header.get("units", ()))
        check_devices(str(path), devices_of(header))
        load_tvm_runtime()
        load_thread_pool()  # kernels look the pool up when they are loaded
        self.inputs = tuple(Signature.read(entry) for entry in header["inputs"])
        self.outputs = tuple(Signature.read(entry) for entry in header["outputs"])
        self.threads = int(header["threads"])
        self._devices = devices_of(header)
        module = load_library(path, self._devices)
        machine = virtual_machine(module, self._devices)
        places = places_of(header)
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        weights = list(_weights(mapped, header, places))
        self._program = Program(
            module=module,
            devices=self._devices,
            entries=entries_of(header, len(weights)),
            weights=weights,
            ownership=Ownership(
                weight for weight, place in zip(weights, places, strict=True) if place.is_host
            ),
            calls=header.get("calls", ()),
            subgraphs=header["plan"]["subgraphs"],
            memory=mapped,
        )
        self.stages = self._program.entries
        self._machine, self._main = machine, self._program.whole(machine, repeats=True)
        self.own_threads = OwnThreads(self.threads)

    def __call__(self, *arguments: Any) -> Any:
        """Run on inputs in the model's order; returns one tensor, or a tuple of several.

        The results support DLPack and belong to the caller. A result that would share memory with
        an input, a weight or another result is copied.

        Parameters
        ----------
        *arguments
            Contiguous tensors in host memory with the shapes and element types of :attr:`inputs`.
            Tensors aligned to :data:`ALIGNMENT` bytes are read in place, others are copied.

        Raises
        ------
        InputError
            If an input is missing, has another shape or element type, or holds an index out of
            range.
        DeviceError
            If a device was in use before this process was forked.
        ForkedError
            If another thread ran a call when this process was forked, and did not end in time.
        """
        results = self.run_all(*arguments)[: len(self.outputs)]
        return results[0] if len(results) == 1 else tuple(results)

    def run_all(self, *arguments: Any) -> list[tvm_ffi.Tensor]:
        """Run and return all results; outputs for verification alone come last."""
        if len(arguments) != len(self.inputs):
            names = ", ".join(signature.name for signature in self.inputs)
            raise InputError(f"got {len(arguments)} inputs; expected {len(self.inputs)}: {names}")
        bound = [_bound(*pair) for pair in zip(self.inputs, arguments, strict=True)]
        check_not_forked(self._devices)
        results = self.own_threads.run(self._main, *bound)
        return self._program.ownership.own(bound, results)

    def worker(
        self, *, threads: int = 1, cores: Collection[int] | None = None, limit_s: float = LIMIT_S
    ) -> TensorWorker:
        """Make a worker with its own threads.

        See :class:`~layoutsel.device.stage_worker.TensorWorker`.
        """
        return TensorWorker(self._program, threads=threads, cores=cores, limit_s=limit_s)


def load(path: str | Path, *, verify: bool = False) -> Model:
    """Load a compiled model: an artifact, or a bundle that deploys one.

    Both contain native code with this process's rights: load only files from a trusted source.

    Parameters
    ----------
    path
        The artifact or the bundle.
    verify
        True to compare all code and weights of an artifact with their checksums; a bundle's are
        always compared.

    Raises
    ------
    ArtifactError, BundleError
        If the file is missing, damaged or of another kind.
    UnitUnavailable
        If this machine lacks an instruction set or a unit that the code needs.
    """
    path = Path(path)
    if path.suffix == SUFFIX:
        if verify:
            verify_parts(path, read_header(path))
        return Model(path)
    with archive.opened(path) as bundle:
        deployed = bundle.manifest.deployed
        if deployed is None:
            raise BundleError(
                f"{path} holds candidates; expected a model, from `layoutsel bundle --plan`"
            )
        check(str(path), bundle.manifest.requires)
        return Model(bundle.folder / deployed.file)


def _bound(signature: Signature, value: Any) -> tvm_ffi.Tensor:
    """Check an input and make it a tensor that kernels can read."""
    tensor = value if isinstance(value, tvm_ffi.Tensor) else tvm_ffi.from_dlpack(value)
    shape, dtype = tuple(tensor.shape), str(tensor.dtype)
    if shape != signature.shape or dtype != signature.dtype or not tensor.is_contiguous():
        raise InputError(
            f"input {signature.name!r}: got {dtype} of shape {shape}; "
            f"expected contiguous {signature.dtype} of shape {signature.shape}"
        )
    if signature.ranges:
        signature.check_values(elements_of(tensor), ends)
    return tensor if tensor.data_ptr() % ALIGNMENT == 0 else copied(tensor, HOST_DEVICE)


def _weights(
    mapped: mmap.mmap, header: Mapping[str, Any], places: Sequence[DeviceId]
) -> Iterator[tvm_ffi.Tensor]:
    """Weights on the mapped file: the system reads their pages when kernels do."""
    start = ctypes.addressof(ctypes.c_byte.from_buffer(mapped))
    for entry, place in zip(header["weights"], places, strict=True):
        tensor = tensor_at(start + entry["offset"], entry["shape"], entry["dtype"])
        yield tensor if place.is_host else copied(tensor, place)
