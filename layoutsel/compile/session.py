"""First phase: a model that is imported and partitioned for a machine, and the units that may run it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
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
from layoutsel.core.precision import PrecisionMode
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
    graph: Graph
    """Sub-graphs and tensors, without code."""
    functions: Functions
    """Code of the sub-graphs."""
    units: Mapping[str, Unit]
    options: Options
    precision: PrecisionMode
    """Precisions that candidates may have, and the error that a model may have."""
    threads: int
    """Threads that the model will run on."""
    samples: tuple[list[np.ndarray], ...] | None = field(default=None, compare=False)
    """Inputs that errors are measured on; seeded random ones where None."""
    cross_target: CrossTarget | None = None
    """Machine that code is generated for; this one where None."""
    machine: MachineProfile | None = None
    """Machine to plan for, where nothing is measured or built; this one where None."""
    left_out: tuple[str, ...] = ()
    """Requested units that are unavailable; they, and pins that name them, are ignored."""
    stored: StoredModel | None = field(default=None, compare=False)
    """The ONNX model with its weights in a file, where they are many; `model` is without them then."""
    pages: Pages = field(default=Pages(), compare=False)
    """Pages of the weights of `model`."""
    before_bytes: int = 0
    """Memory that the process had before the model was imported."""

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
            As of :func:`layoutsel.optimize`.
        options
            The defaults where None.
        cross_target
            Machine to generate code for; that of ``options.machine``, or this one, where None.
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
        module = PartitionSubgraphs()(ExposeLogits()(CancelTransforms()(model.module)))
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
        """The same without units that have a memory of their own, on the CPU where no other is left."""
        left = {name: unit for name, unit in self.units.items() if name not in self.devices}
        return replace(
            self,
            units=left or select(FALLBACKS, self.precision),
            options=replace(self.options, fallback=None),
            left_out=(*self.left_out, *self.devices),
        )

    @property
    def objective(self) -> str:
        """Objective that plans are chosen by: an entry of :func:`layoutsel.planning.objectives.objectives`."""
        asked = self.options
        return objective_for(asked.objective, parallel=asked.parallel, mode=self.precision)

    @contextmanager
    def generating(self) -> Iterator[None]:
        """Within it, the units see the machine and the threads that code is for, and the tuning records at hand."""
        with (
            targeting(self.cross_target),
            for_threads(self.threads),
            self._tuned,
            sharing(self.weights),
        ):
            yield

    @cached_property
    def weights(self) -> WeightPool:
        """The packed weights of all plans that are built and in use."""
        return WeightPool(self.pages.evict)

    @cached_property
    def _tuned(self) -> AbstractContextManager[Any]:
        if self.machine is not None and self.options.logs is None:
            return nullcontext()  # those of this machine say nothing of another
        return tuning_records(Path(self.options.logs) if self.options.logs else None)

    def lower(
        self,
        decisions: Mapping[SubgraphId, Decision],
        order: Sequence[SubgraphId] = (),
        stages: Stages | None = None,
    ) -> Lowered:
        """Give every sub-graph its code; see :func:`layoutsel.building.build.lower_decisions`."""
        with self.generating():
            lowered = lower_decisions(self.functions, decisions, order=order, stages=stages)
        self.pages.evict()
        return lowered

    @property
    def devices(self) -> tuple[str, ...]:
        """Units with a memory of their own; of this machine they are measured."""
        return tuple(name for name, unit in self.units.items() if unit.backend.device != HOST)

    @property
    def context(self) -> Context:
        """What measurements hold for."""
        machine = self.described.fingerprint
        versions = {**all_versions(), **self._device_versions()}
        return Context(machine=machine, versions=versions, threads=self.threads)

    def devices_of(self, unit: str) -> tuple[DeviceId, ...]:
        """Devices of a unit on the machine that is planned for."""
        if unit not in self.devices:
            return (HOST_DEVICE,)
        kind = kind_of_unit(unit)
        return tuple(sorted(device for device in self.identities if device.kind == kind))

    def offered_devices(self, unit: str) -> tuple[tuple[DeviceId, ...], ...]:
        """Devices that candidates of a unit are for, in groups that are alike.

        Of a group the first device alone, unless work on several may overlap, or a pin names another one.
        """
        overlaps = objective_of(self.objective).overlaps
        pinned = {Pin.parse(pin).device for pin in self.options.pins}
        groups: dict[DeviceId, list[DeviceId]] = {}
        for device in self.devices_of(unit):
            group = groups.setdefault(self.alike.get(device, device), [])
            if overlaps or not group or (device.node, device.index) in pinned:
                group.append(device)
        return tuple(map(tuple, groups.values()))

    @property
    def placed_units(self) -> tuple[str, ...]:
        """The units, and again on each further device that candidates are for, as decisions write them."""
        further = (
            placed_unit(unit, device.node, device.index)
            for unit in self.devices
            for group in self.offered_devices(unit)
            for device in group
        )
        return tuple(dict.fromkeys((*self.units, *further)))

    def unit_of(self, device: DeviceId) -> str:
        """The unit whose copies stand for those of all units on a device with a memory of its own."""
        return next(unit for unit in self.devices if kind_of_unit(unit) == device.kind)

    @cached_property
    def identities(self) -> Mapping[DeviceId, str]:
        """Everything that measurements depend on, by device with a memory of its own."""
        if self.machine is not None:
            named = {DeviceId.named(name): one for name, one in self.machine.devices.items()}
            kinds = {kind_of_unit(unit) for unit in self.devices}
            return {device: one.name for device, one in named.items() if device.kind in kinds}
        backends = [self.units[name].backend for name in self.devices]
        if self.cross_target is not None:
            # Its driver cannot be asked from here.
            return {one: f"{b.name} of another machine" for b in backends for one in b.devices()}
        return {one: b.identity(one.index) for b in backends for one in b.devices()}

    @cached_property
    def alike(self) -> Mapping[DeviceId, DeviceId]:
        """By device, the first one that is alike: their prices are the same."""
        return first_alike(self.identities)

    def _device_versions(self) -> dict[str, str]:
        """Identity of each device that measurements are kept of, by placed unit."""
        return {
            f"{placed_unit(unit, device.node, device.index)}:{DEVICE}": self.identities[device]
            for unit in self.devices
            for device in sorted(set(self.alike.values()))
            if device.kind == kind_of_unit(unit)
        }

    @property
    def described(self) -> Machine:
        """The machine that is planned for."""
        return self.machine.machine if self.machine is not None else this_machine()

    @cached_property
    def reference_process(self) -> Worker:
        """A process that computes references, one after the other; see :meth:`make_room`."""
        worker = Worker(
            "layoutsel.references.reference_worker:compute",
            time_limit_s=self.options.time_limit_s,
        )
        weakref.finalize(self, worker.close)
        return worker

    def make_room(self) -> None:
        """Give memory back: freed memory, and that of the process of the references, which starts again on demand."""
        self.reference_process.close()
        give_back()


def _check_threads(options: Options, machine: MachineProfile) -> None:
    if options.threads not in (None, machine.threads):
        raise LayoutselError(
            f"{options.machine}: got {options.threads} threads; expected {machine.threads}, which its peaks are of"
        )
