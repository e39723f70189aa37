"""One model on one machine, from import to the compiled module: each step takes the finished one before it."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from layoutsel.building.build import Lowered, lower_decisions
from layoutsel.building.cross_target import elsewhere_of
from layoutsel.building.in_place import InPlace
from layoutsel.building.problem import Candidates, gather_candidates
from layoutsel.building.workloads import workload
from layoutsel.compile import legality, make_plan, measuring
from layoutsel.compile.fallback import CPU, check_fallback, present
from layoutsel.compile.importing import import_aside
from layoutsel.compile.memory import check_limits, resident_bytes
from layoutsel.compile.paging import Pages
from layoutsel.compile.pricing import Pricing
from layoutsel.compile.versions import all_versions
from layoutsel.core.precision import F32, MODES, PrecisionMode, precision_mode
from layoutsel.cost import adapt
from layoutsel.cost.device_peaks import device_peaks
from layoutsel.cost.learned import PRETRAINED, LearnedCost, LearnedModel
from layoutsel.cost.measured import Key, MeasuredCost, Progress, Request
from layoutsel.cost.model import Workload
from layoutsel.cost.peaks import machine_peaks
from layoutsel.cost.roofline import RooflineCost
from layoutsel.cost.samples import MachineProfile
from layoutsel.cost.scopes import DEVICE
from layoutsel.cost.store import Context, Store
from layoutsel.device.machine import Machine, this_machine
from layoutsel.device.outcome import Failure
from layoutsel.device.threads import available_threads
from layoutsel.device.worker import Worker
from layoutsel.model import ImportedModel
from layoutsel.model.graph import ModelGraph, Subgraph
from layoutsel.planning.plan import Plan
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.solve import Solution
from layoutsel.references.calibration_inputs import read_calibration
from layoutsel.references.stored_model import StoredModel
from layoutsel.tuning.database import tuning_records
from layoutsel.units.base import Unit, select
from layoutsel.units.sensitive import Sensitivity, sensitive_subgraphs
from tvm_passes.cancel_transforms import CancelTransforms
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.devices import HOST
from tvm_passes.errors import Decline, LayoutselError
from tvm_passes.expose_logits import ExposeLogits
from tvm_passes.limits import ImportLimits
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.targets import Elsewhere, for_threads, targeting
from tvm_passes.weight_pool import WeightPool, sharing

CANDIDATE_LIMIT_S = 60.0
"""Building and timing one candidate takes seconds; what takes longer hangs."""

COSTS = ("learned", "hybrid", "measured", "roofline")
"""What ``--cost`` takes: predicted by the learned model; the same, with what could change the plan measured; everything
measured; nothing but the machine."""

TIME_LIMIT_S = 300.0
"""Seconds that racing takes at most where nothing else is said, and each of the steps of verification."""
OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Session:
    """A partitioned model, the units that may run it, and how many threads they get."""

    model: ImportedModel
    graph: ModelGraph
    units: Mapping[str, Unit]
    threads: int
    cache: Path | None = None
    """File of measurements; the user's cache folder where None."""
    progress: OnProgress | None = field(default=None, compare=False)
    cost_model_folder: Path = PRETRAINED
    """The learned cost model."""
    logs: Path | None = None
    """Folder of tuning records; the user's cache folder where None."""
    precision: PrecisionMode = MODES[F32]
    """Which precisions candidates may have, and what error a model may."""
    samples: tuple[list[np.ndarray], ...] | None = field(default=None, compare=False)
    """Inputs that errors are measured on; seeded random ones where None."""
    elsewhere: Elsewhere | None = None
    """The machine that code is generated for; this one where None."""
    machine: MachineProfile | None = None
    """The machine to plan for, where nothing is measured or built; this one where None."""
    fallback: str | None = None
    """What to go on with where a device fails; None where that is an error."""
    left_out: tuple[str, ...] = ()
    """Units that the user named and that are done without; so are pins to them."""
    parallel: bool = False
    """True if plans are chosen by their makespan: devices work while the host does."""
    time_limit_s: float = TIME_LIMIT_S
    """Seconds that racing takes, and each of the steps of verification."""
    memory_limit_mb: float | None = None
    """Memory to compile in, beyond `before_bytes`; a multiple of the weights where None."""
    stored: StoredModel | None = field(default=None, compare=False)
    """The ONNX model with its weights in a file, where they are many; `model` is without them then."""
    pages: Pages = field(default=Pages(), compare=False)
    """Of the weights of `model`."""
    before_bytes: int = 0
    """Memory that the process had before the model was imported."""

    @classmethod
    def open(  # noqa: PLR0913 - each option of `optimize` that concerns it
        cls,
        source: Any,
        *,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        units: Sequence[str] | None = None,
        threads: int | None = None,
        precision: str = F32,
        max_rel_error: float | None = None,
        calib: str | Path | None = None,
        cache: str | Path | None = None,
        progress: OnProgress | None = None,
        cost_model: str | Path | None = None,
        logs: str | Path | None = None,
        elsewhere: Elsewhere | None = None,
        machine: str | Path | None = None,
        fallback: str | None = None,
        parallel: bool = False,
        time_limit_s: float = TIME_LIMIT_S,
        memory_limit_mb: float | None = None,
        allow_external_links: bool = False,
        limits: ImportLimits | None = None,
    ) -> Session:
        """Import and partition `source`; parameters as of :func:`layoutsel.optimize`, and a machine to generate code for.

        `machine` is the file of a machine to plan for, a :class:`MachineProfile` as JSON; code is generated for that one.
        """
        mode = precision_mode(precision, max_rel_error)
        if threads is not None and threads < 1:
            raise LayoutselError(f"got {threads} threads; expected at least 1")
        check_fallback(fallback)
        make_plan.objective_for(parallel=parallel, mode=mode)
        check_limits(time_limit_s, memory_limit_mb)
        before_bytes = resident_bytes()
        names = tuple(units) if units is not None else None
        left_out: tuple[str, ...] = ()
        other = MachineProfile.load(Path(machine)) if machine is not None else None
        if other is not None and threads not in (None, other.threads):
            raise LayoutselError(
                f"{machine}: got {threads} threads; expected {other.threads}, which its peaks are of"
            )
        if other is not None and elsewhere is None:
            elsewhere = elsewhere_of(other)
        with targeting(elsewhere):
            if fallback is not None and names is not None:
                names, left_out = present(names)
            chosen = select(names, mode)
        imported = import_aside(
            source, shapes=shapes, allow_external_links=allow_external_links, limits=limits
        )
        model, pages = imported.model, imported.pages
        samples = read_calibration(calib, model.inputs) if calib is not None else None
        module = PartitionSubgraphs()(ExposeLogits()(CancelTransforms()(model.module)))
        pages.evict()
        return cls(
            model,
            ModelGraph.read(module, model.origins),
            chosen,
            other.threads if other else threads or available_threads(),
            Path(cache) if cache else None,
            progress,
            Path(cost_model) if cost_model else PRETRAINED,
            Path(logs) if logs else None,
            mode,
            samples,
            elsewhere,
            other,
            fallback,
            left_out,
            parallel,
            time_limit_s,
            memory_limit_mb,
            imported.stored,
            pages,
            before_bytes,
        )

    def on_host(self) -> Session:
        """The same without units that have a memory of their own, on the CPU where no other is left."""
        left = {name: unit for name, unit in self.units.items() if name not in self.devices}
        return replace(
            self,
            units=left or select((CPU,), self.precision),
            fallback=None,
            left_out=(*self.left_out, *self.devices),
        )

    @property
    def objective(self) -> str:
        """Objective that plans are chosen by: an entry of :func:`layoutsel.planning.objectives.objectives`."""
        return make_plan.objective_for(parallel=self.parallel, mode=self.precision)

    @contextmanager
    def generating(self) -> Iterator[None]:
        """Within it, the units see the machine and the threads that code is for, and the tuning records at hand."""
        with (
            targeting(self.elsewhere),
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
        if self.machine is not None and self.logs is None:
            return nullcontext()  # those of this machine say nothing of another
        return tuning_records(self.logs)

    def lower(
        self, decisions: Mapping[SubgraphId, Decision], order: Sequence[SubgraphId] = ()
    ) -> Lowered:
        """Give every sub-graph its code; see :func:`layoutsel.building.build.lower_decisions`."""
        with self.generating():
            lowered = lower_decisions(self.graph, decisions, order=order)
        self.pages.evict()
        return lowered

    @cached_property
    def candidates(self) -> dict[SubgraphId, Candidates]:
        """What every unit offers for every sub-graph."""
        with self.generating():
            return gather_candidates(self.graph, self.units, self._admits)

    @cached_property
    def _sensitive(self) -> Mapping[SubgraphId, Sensitivity]:
        return sensitive_subgraphs(self.graph)

    def _admits(self, subgraph: Subgraph, decision: Decision) -> bool | Decline:
        """Whether the mode lets a decision pass; sensitive sub-graphs decline precisions that it has no room for."""
        sensitivity = self._sensitive.get(subgraph.id)
        if self.precision.offers(decision.precision, sensitivity.felt if sensitivity else 0.0):
            return True
        if sensitivity is None or decision.precision not in self.precision.precisions:
            return False
        return sensitivity.decline(subgraph, decision, self.precision)

    @property
    def devices(self) -> tuple[str, ...]:
        """Units with a memory of their own; of this machine they are measured."""
        return tuple(name for name, unit in self.units.items() if unit.backend.device != HOST)

    @cached_property
    def records(self) -> dict[tuple[str, Decision], str]:
        """The tuning records that candidates get their code from, by structural hash and decision."""
        distinct = {subgraph.structural_hash: subgraph for subgraph in self.graph.subgraphs}
        with self.generating():
            return {
                (key, decision): record
                for key, subgraph in distinct.items()
                for decision in self.candidates[subgraph.id].decisions
                if (record := self._record(subgraph, decision))
            }

    def _record(self, subgraph: Subgraph, decision: Decision) -> str:
        return self.units[decision.unit].backend.record(self.graph.functions[subgraph.id], decision)

    def asked(self, subgraph: Subgraph, decision: Decision) -> Workload:
        """What a cost model is told of a candidate; with a tuning record, that is part of the key."""
        work = self.workloads[subgraph.id]
        record = self.records.get((subgraph.structural_hash, decision))
        if record is None:
            return work
        return replace(work, key=f"{work.key}+{hashlib.sha256(record.encode()).hexdigest()[:12]}")

    @cached_property
    def workloads(self) -> dict[SubgraphId, Workload]:
        """What a cost model is told of every sub-graph."""
        distinct = {subgraph.structural_hash: subgraph for subgraph in self.graph.subgraphs}
        with self.generating():
            hints = {key: self._hints(subgraph) for key, subgraph in distinct.items()}
        return {
            subgraph.id: workload(subgraph, hints[subgraph.structural_hash])
            for subgraph in self.graph.subgraphs
        }

    def _hints(self, subgraph: Subgraph) -> dict[str, Mapping[str, float]]:
        function = self.graph.functions[subgraph.id]
        return {
            str(decision): self.units[decision.unit].backend.hints(function, decision)
            for decision in self.candidates[subgraph.id].decisions
        }

    def check_legal(self, decisions: Mapping[SubgraphId, Decision]) -> None:
        """See :func:`layoutsel.compile.legality.check_legal`."""
        legality.check_legal(self, decisions)

    @property
    def context(self) -> Context:
        """What measurements hold for."""
        machine = self.described.fingerprint
        devices = {f"{name}:{DEVICE}": self._identity(name) for name in self.devices}
        versions = {**all_versions(), **devices}
        return Context(machine=machine, versions=versions, threads=self.threads)

    def _identity(self, device: str) -> str:
        if self.machine is not None:
            return self.machine.devices[device].name
        return self.units[device].backend.identity()

    @property
    def described(self) -> Machine:
        """The machine that is planned for."""
        return self.machine.machine if self.machine is not None else this_machine()

    @contextmanager
    def cost_model(self, cost: str) -> Iterator[MeasuredCost]:
        """The cost model, with its store open; ``measured`` first measures what the store lacks."""
        if cost not in COSTS:
            raise LayoutselError(f"unknown cost model {cost!r}: expected one of {', '.join(COSTS)}")
        estimate = self.roofline if cost == "roofline" else self.learned
        with Store(self.context, self.cache) as store:
            model = MeasuredCost(store, estimate, self.disturbed)
            if cost == "measured" and self.machine is None:
                measuring.measure_all(self, model)
            yield model

    @cached_property
    def disturbed(self) -> dict[Key, Failure]:
        """Candidates whose measurement was interrupted: the last resort of this session, not tried again by it, not stored."""
        return {}

    @cached_property
    def learned(self) -> LearnedCost:
        """The learned cost model, adapted to this machine where it was calibrated."""
        model = LearnedModel.load(self.cost_model_folder)
        adaptation = adapt.load(model.version, adapt.adaptation_file(self.profile))
        return LearnedCost(model, self.profile, adaptation)

    @cached_property
    def profile(self) -> MachineProfile:
        """The machine that is planned for, and what was measured of it."""
        if self.machine is not None:
            return self.machine
        return MachineProfile(
            machine=this_machine(),
            peaks=machine_peaks(self.threads),
            devices={name: device_peaks(name, self._identity(name)) for name in self.devices},
        )

    @cached_property
    def roofline(self) -> RooflineCost:
        """The roofline of the machine and its devices, with the units' efficiencies."""
        return RooflineCost.of(self.profile)

    def worker(self) -> Worker:
        """A process that measures; a context manager."""
        threads = str(self.threads)
        return Worker(
            "layoutsel.building.measure:run_request",
            time_limit_s=CANDIDATE_LIMIT_S,
            environment={"OMP_NUM_THREADS": threads, "TVM_NUM_THREADS": threads},
        )

    @cached_property
    def reference_process(self) -> Worker:
        """A process that computes references, one after the other; it ends with the session."""
        worker = Worker(
            "layoutsel.references.reference_worker:compute", time_limit_s=self.time_limit_s
        )
        weakref.finalize(self, worker.close)
        return worker

    def request(self, subgraph: Subgraph, decision: Decision) -> Request:
        """What a worker is asked to measure a candidate."""
        return measuring.request(self, subgraph, decision)

    def problem(
        self,
        cost: str = "learned",
        pins: Sequence[str] = (),
        measure_budget_s: float | None = None,
    ) -> PlanningProblem:
        """The planning problem: every candidate and boundary priced, pins applied.

        With ``hybrid``, candidates whose uncertainty could change the plan are measured, for `measure_budget_s`
        seconds at most. So they are with ``learned`` where the mode offers more than f32, which the learned model does
        not know; what is left unmeasured then is left out.
        """
        return make_plan.priced_problem(self, cost, pins, measure_budget_s)

    def priced(self, model: MeasuredCost, cost: str = "learned") -> PlanningProblem:
        """The planning problem with what `model` says now; nothing is measured, no pin applied."""
        return Pricing(self, model, cost).problem()

    @cached_property
    def in_place(self) -> InPlace:
        """The concatenations that need not copy."""
        return InPlace.read(self.graph)

    def plan(self, problem: PlanningProblem, strategy: str = "joint") -> Plan:
        """Choose a decision for every sub-graph of `problem`: with a budget, the fastest predicted to be within."""
        return make_plan.best_plan(self, problem, strategy)

    def explained(self, problem: PlanningProblem, solution: Solution, strategy: str) -> Plan:
        """Write down `solution` with its reasons; `strategy` says how it came about."""
        return make_plan.explained(self, problem, solution, strategy)
