"""First phase of compiling: a model, imported and partitioned for a machine, and its units."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from layoutsel.building.build import Lowered, lower_decisions
from layoutsel.building.cross_target import cross_target_of
from layoutsel.building.functions import Functions
from layoutsel.compile.importing import import_aside
from layoutsel.compile.memory import resident_bytes
from layoutsel.compile.options import Options, objective_for
from layoutsel.compile.paging import Pages
from layoutsel.compile.versions import all_versions
from layoutsel.core.choices import FALLBACKS
from layoutsel.core.precision import BF16, PrecisionMode
from layoutsel.cost.alike import first_alike
from layoutsel.cost.graph import Graph
from layoutsel.cost.samples import MachineProfile
from layoutsel.cost.scopes import DEVICE
from layoutsel.cost.store import Context
from layoutsel.device.machine import Machine, this_machine
from layoutsel.device.threads import available_threads
from layoutsel.device.worker import Worker
from layoutsel.model import ImportedModel
from layoutsel.model.graph import read_graph
from layoutsel.planning.objectives import objective_of
from layoutsel.planning.pins import Pin
from layoutsel.references.calibration_inputs import read_calibration
from layoutsel.references.stored_model import StoredModel
from layoutsel.tuning.database import tuning_records
from layoutsel.units.base import Unit, present_units, select
from tvm_passes.cancel_transforms import CancelTransforms
from tvm_passes.decision import Decision, SubgraphId, placed_unit
from tvm_passes.devices import HOST, HOST_DEVICE, DeviceId, kind_of_unit
from tvm_passes.errors import LayoutselError
from tvm_passes.expose_logits import ExposeLogits
from tvm_passes.freed_memory import give_back
from tvm_passes.name_subgraphs import NameSubgraphs, Sources
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.stages import Stages
from tvm_passes.targets import CrossTarget, for_threads, targeting
from tvm_passes.weight_pool import WeightPool, sharing


@dataclass(frozen=True)
class Session:
    """A partitioned model, the units that may run it, and the caller's options."""

    model: ImportedModel
    """Imported model."""
    graph: Graph
    """Sub-graphs and tensors, without code."""
    functions: Functions
    """Code of the sub-graphs."""
    units: Mapping[str, Unit]
    """Units that may run the model, by name."""
    options: Options
    """Options of the caller."""
    precision: PrecisionMode
    """Precisions that candidates may have, and the maximum error of the model."""
    threads: int
    """Number of threads that will run the model."""
    samples: tuple[list[np.ndarray], ...] | None = field(default=None, compare=False)
    """Inputs for measuring errors; None for seeded random inputs."""
    cross_target: CrossTarget | None = None
    """Machine to generate code for; None for this one."""
    machine: MachineProfile | None = None
    """Machine to plan for without measuring or building; None for this one."""
    left_out: tuple[str, ...] = ()
    """Requested units that are unavailable; they, and pins that name them, are ignored."""
    stored: StoredModel | None = field(default=None, compare=False)
    """ONNX model with large weights in a file; `model` then lacks them. None if they are small."""
    pages: Pages = field(default=Pages(), compare=False)
    """Pages of the weights of `model`."""
    before_bytes: int = 0
    """Memory of the process before the import, bytes."""

    @classmethod
    def open(
        cls,
        source: Any,
        options: Options | None = None,
        *,
        cross_target: CrossTarget | None = None,
        **changes: Any,
    ) -> Session:
        """Import and partition a model.

        Parameters
        ----------
        source
            Model as in :func:`layoutsel.optimize`.
        options
            Options of the caller; by default those of :class:`~layoutsel.compile.options.Options`.
        cross_target
            Machine to generate code for; by default that of ``options.machine``, or this one.
        changes
            Single options that differ from `options`.
        """
        options = replace(options or Options(), **changes)
        before_bytes = resident_bytes()
        names = tuple(options.units) if options.units is not None else None
        left_out: tuple[str, ...] = ()
        other = MachineProfile.load(Path(options.machine)) if options.machine is not None else None
        if other is not None:
            _check_threads(options, other)
            cross_target = cross_target or cross_target_of(other)
        with targeting(cross_target):
            if options.fallback is not None and names is not None:
                names, left_out = present_units(names)
            units = select(names, options.mode)
        imported = import_aside(
            source,
            shapes=options.shapes,
            allow_external_links=options.allow_external_links,
            limits=options.limits,
        )
        model, pages = imported.model, imported.pages
        calib = options.calib
        samples = read_calibration(calib, model.inputs) if calib is not None else None
        # An attention's kernel computes in float32; its products alone can be narrower.
        partition = PartitionSubgraphs(attention=BF16 not in options.mode.precisions)
        module = partition(ExposeLogits()(CancelTransforms()(model.module)))
        module = NameSubgraphs(Sources(layers=model.layer_names, nodes=model.origins))(module)
        pages.evict()
        return cls(
            model=model,
            graph=read_graph(module, model.origins),
            functions=Functions(module),
            units=units,
            options=options,
            precision=options.mode,
            threads=other.threads if other else options.threads or available_threads(),
            samples=samples,
            cross_target=cross_target,
            machine=other,
            left_out=left_out,
            stored=imported.stored,
            pages=pages,
            before_bytes=before_bytes,
        )

    def on_host(self) -> Session:
        """Make a session of the host's units; of the CPU if there are no others."""
        left = {name: unit for name, unit in self.units.items() if name not in self.devices}
        return replace(
            self,
            units=left or select(FALLBACKS, self.precision),
            options=replace(self.options, fallback=None),
            left_out=(*self.left_out, *self.devices),
        )

    @property
    def objective(self) -> str:
        """Objective of planning: a name in :func:`layoutsel.planning.objectives.objectives`."""
        asked = self.options
        return objective_for(asked.objective, parallel=asked.parallel, mode=self.precision)

    @contextmanager
    def generating(self) -> Iterator[None]:
        """Provide machine, threads and tuning records to the units within the context."""
        with (
            targeting(self.cross_target),
            for_threads(self.threads),
            self._tuned,
            sharing(self.weights),
        ):
            yield

    @cached_property
    def weights(self) -> WeightPool:
        """Packed weights of all plans that are built and in use."""
        return WeightPool(self.pages.evict)

    @cached_property
    def _tuned(self) -> AbstractContextManager[Any]:
        if self.machine is not None and self.options.logs is None:
            return nullcontext()  # this machine's records do not hold for another
        return tuning_records(Path(self.options.logs) if self.options.logs else None)

    def lower(
        self,
        decisions: Mapping[SubgraphId, Decision],
        order: Sequence[SubgraphId] = (),
        stages: Stages | None = None,
        staying: Collection[str] = (),
    ) -> Lowered:
        """Lower decisions to kernels; see :func:`layoutsel.building.build.lower_decisions`."""
        with self.generating():
            lowered = lower_decisions(
                self.functions, decisions, order=order, stages=stages, staying=staying
            )
        self.pages.evict()
        return lowered

    @property
    def devices(self) -> tuple[str, ...]:
        """Units on devices with their own memory."""
        return tuple(name for name, unit in self.units.items() if unit.backend.device != HOST)

    @property
    def context(self) -> Context:
        """Machine, threads and versions of the session's measurements."""
        machine = self.described.fingerprint
        versions = {**all_versions(), **self._device_versions()}
        return Context(machine=machine, versions=versions, threads=self.threads)

    def devices_of(self, unit: str) -> tuple[DeviceId, ...]:
        """List the devices of a unit on the target machine."""
        if unit not in self.devices:
            return (HOST_DEVICE,)
        kind = kind_of_unit(unit)
        return tuple(sorted(device for device in self.identities if device.kind == kind))

    def offered_devices(self, unit: str) -> tuple[tuple[DeviceId, ...], ...]:
        """List the devices that candidates of a unit may use, in groups of identical devices.

        A group has one device if the objective lets no work overlap. Otherwise it has up to one
        more than the number of sub-graphs that can run at once. Devices that a pin names are added.
        """
        most = 1 + self.graph.width if objective_of(self.objective).overlaps else 1
        pinned = {Pin.parse(pin).device for pin in self.options.pins}
        groups: dict[DeviceId, list[DeviceId]] = {}
        for device in self.devices_of(unit):
            group = groups.setdefault(self.alike.get(device, device), [])
            if len(group) < most or (device.node, device.index) in pinned:
                group.append(device)
        return tuple(map(tuple, groups.values()))

    @property
    def placed_units(self) -> tuple[str, ...]:
        """Names of the units, and of the units on further devices, as decisions write them."""
        further = (
            placed_unit(unit, device.node, device.index)
            for unit in self.devices
            for group in self.offered_devices(unit)
            for device in group
        )
        return tuple(dict.fromkeys((*self.units, *further)))

    def unit_of(self, device: DeviceId) -> str:
        """Return the unit that prices copies from and to a device, for all units on it."""
        return next(unit for unit in self.devices if kind_of_unit(unit) == device.kind)

    @cached_property
    def identities(self) -> Mapping[DeviceId, str]:
        """Identity of each device with its own memory: all that measurements depend on."""
        if self.machine is not None:
            named = {DeviceId.named(name): one for name, one in self.machine.devices.items()}
            kinds = {kind_of_unit(unit) for unit in self.devices}
            return {device: one.name for device, one in named.items() if device.kind in kinds}
        backends = [self.units[name].backend for name in self.devices]
        if self.cross_target is not None:
            # The other machine's driver is not available here.
            return {one: f"{b.name} of another machine" for b in backends for one in b.devices()}
        return {one: b.identity(one.index) for b in backends for one in b.devices()}

    @cached_property
    def alike(self) -> Mapping[DeviceId, DeviceId]:
        """First identical device of each device; their prices are equal."""
        return first_alike(self.identities)

    def _device_versions(self) -> dict[str, str]:
        """Return the identity of each measured device, by placed unit."""
        return {
            f"{placed_unit(unit, device.node, device.index)}:{DEVICE}": self.identities[device]
            for unit in self.devices
            for device in sorted(set(self.alike.values()))
            if device.kind == kind_of_unit(unit)
        }

    @property
    def described(self) -> Machine:
        """Machine to plan for."""
        return self.machine.machine if self.machine is not None else this_machine()

    @cached_property
    def reference_process(self) -> Worker:
        """Process that computes references one after another; see :meth:`make_room`."""
        worker = Worker(
            "layoutsel.references.reference_worker:compute",
            time_limit_s=self.options.time_limit_s,
        )
        weakref.finalize(self, worker.close)
        return worker

    def make_room(self) -> None:
        """Release free memory, and end the process of the references, which restarts on demand."""
        self.reference_process.close()
        give_back()


def _check_threads(options: Options, machine: MachineProfile) -> None:
    if options.threads not in (None, machine.threads):
        raise LayoutselError(
            f"{options.machine}: got {options.threads} threads; expected {machine.threads}, "
            "which its peaks are of"
        )
