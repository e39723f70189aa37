"""Measuring of boundaries: layout transforms at a few sizes, hand-overs, and copies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from types import MappingProxyType
from typing import Any

from layoutsel.building.workloads import tensor_spec
from layoutsel.core.workload import BoundaryTensor
from layoutsel.cost.alike import pair_alike
from layoutsel.cost.measured import PricingProgress, Request
from layoutsel.cost.store import Store
from layoutsel.cost.tensor import Tensor
from layoutsel.device.outcome import Outcome, Timing
from layoutsel.device.worker import Reply, Worker
from tvm_passes.backends import BACKENDS
from tvm_passes.decision import Decision, parse_placed_unit, placed_unit
from tvm_passes.devices import HOST, DeviceId
from tvm_passes.layout import BF16, PLAIN, order_of, storage_of, tensor_layout
from tvm_passes.units.entry import HOST_UNIT

NO_DEVICES: Mapping[DeviceId, DeviceId] = MappingProxyType({})
"""Table of identical devices if there are none: each device stands for itself."""
SIZES = 6
"""Number of tensors measured for each pair of layouts; other sizes are interpolated by bytes."""


@dataclass(frozen=True, kw_only=True)
class BoundaryProbe:
    """A transform or a crossing to measure."""

    kind: str
    """``transform`` or ``crossing``."""
    source: str
    """Layout to transform from, or unit and device of the producer, such as ``cuda@1``."""
    destination: str
    """Layout to transform to, or unit and device of the consumer."""
    tensor: BoundaryTensor
    """Tensor that passes the boundary."""
    unit: str
    """Unit and device that make the transform, or that receive the tensor."""

    @property
    def label(self) -> str:
        """Readable name of the probe."""
        shape = "×".join(map(str, self.tensor.shape))
        return f"{self.kind} {self.source}>{self.destination} {shape}"

    def payload(self, threads: int) -> Mapping[str, Any]:
        """Make the payload of a worker's call."""
        return {
            "kind": self.kind,
            "shape": self.tensor.shape,
            "dtype": self.tensor.dtype,
            "unit": self.unit,
            "source": self.source,
            "destination": self.destination,
            "threads": threads,
        }


def boundaries_of(
    tensors: Sequence[Tensor],
    layouts: Sequence[str],
    placed_units: Sequence[str],
    alike: Mapping[DeviceId, DeviceId] = NO_DEVICES,
) -> list[BoundaryProbe]:
    """List the boundaries to measure: transforms, crossings between units, copies between devices.

    Parameters
    ----------
    tensors
        Tensors of the model. Transforms from or to a layout with a storage of its own, such as
        ``NHWC.bf16``, are listed only for tensors that have a price for them.
    layouts
        Layouts to transform between.
    placed_units
        Units of the session, on all their devices.
    alike
        First identical device of each device (:func:`~layoutsel.cost.alike.first_alike`). Copies
        are measured for one pair of devices in place of all identical pairs.
    """
    units = tuple(dict.fromkeys(parse_placed_unit(unit)[0] for unit in placed_units))
    return [
        *_transforms(tensors, layouts, units),
        *_conversions(tensors, units),
        *_crossings(tensors, units),
        *_copies(tensors, placed_units, alike),
    ]


def measure_boundaries(
    tensors: Sequence[Tensor],
    layouts: Sequence[str],
    placed_units: Sequence[str],
    store: Store,
    worker: Worker,
    threads: int,
    on_progress: Callable[[PricingProgress], None] | None = None,
    *,
    alike: Mapping[DeviceId, DeviceId] = NO_DEVICES,
) -> None:
    """Measure the boundaries of :func:`boundaries_of` that `store` lacks.

    Boundaries that cannot be measured keep their estimates.
    """
    wanted = boundaries_of(tensors, layouts, placed_units, alike)
    _measure_missing(wanted, store, worker, threads, on_progress)


def measure_conversions(
    tensors: Sequence[Tensor],
    units: Sequence[str],
    store: Store,
    worker: Worker,
    threads: int,
    on_progress: Callable[[PricingProgress], None] | None = None,
) -> None:
    """Measure transforms from or to a layout with a storage of its own, such as ``NHWC.bf16``.

    Only those that `tensors` have prices for, and that `store` lacks, are measured.
    """
    _measure_missing(_conversions(tensors, units), store, worker, threads, on_progress)


def measure_copies(
    tensors: Sequence[Tensor],
    placed_units: Sequence[str],
    store: Store,
    worker: Worker,
    threads: int,
    on_progress: Callable[[PricingProgress], None] | None = None,
    *,
    alike: Mapping[DeviceId, DeviceId] = NO_DEVICES,
) -> None:
    """Measure the copies between the memories of `placed_units` that `store` lacks."""
    _measure_missing(_copies(tensors, placed_units, alike), store, worker, threads, on_progress)


def _measure_missing(
    wanted: Iterable[BoundaryProbe],
    store: Store,
    worker: Worker,
    threads: int,
    on_progress: Callable[[PricingProgress], None] | None,
) -> None:
    missing = [boundary for boundary in wanted if not _is_known(store, boundary)]
    for done, boundary in enumerate(missing, start=1):
        outcome = _measure(boundary, store, worker, threads)
        if on_progress is not None:
            unit, device = parse_placed_unit(boundary.unit)
            decision = Decision(unit=unit).on(device)
            request = Request(key=boundary.kind, decision=decision, label=boundary.label)
            on_progress(
                PricingProgress(done=done, total=len(missing), request=request, outcome=outcome)
            )


def _transforms(
    tensors: Sequence[Tensor], layouts: Sequence[str], units: Sequence[str]
) -> Iterator[BoundaryProbe]:
    for tensor in _representatives(tensors):
        spec = tensor_spec(tensor)
        for source, destination in permutations(layouts, 2):
            if {source, destination} <= _legal(tensor, layouts):
                yield BoundaryProbe(
                    kind="transform",
                    source=source,
                    destination=destination,
                    tensor=spec,
                    unit=_transformer(units, source, destination),
                )


def _conversions(tensors: Sequence[Tensor], units: Sequence[str]) -> Iterator[BoundaryProbe]:
    """Yield the transforms from or to a storage, for tensors that have them at both ends."""
    pairs: dict[tuple[str, str], list[Tensor]] = {}
    for tensor in tensors:
        for pair in tensor.transform_us:
            if any(map(storage_of, pair)):
                pairs.setdefault(pair, []).append(tensor)
    for (source, destination), members in sorted(pairs.items()):
        for tensor in _spread({tensor.bytes: tensor for tensor in members}):
            yield BoundaryProbe(
                kind="transform",
                source=source,
                destination=destination,
                tensor=tensor_spec(tensor),
                unit=_transformer(units, source, destination),
            )


def _transformer(units: Sequence[str], *layouts: str) -> str:
    """Return the unit that transforms between `layouts`: the CPU unless a partition can."""
    orders = set(map(order_of, layouts))
    if not {*map(storage_of, layouts)} <= {"", BF16} and HOST_UNIT in units:
        return HOST_UNIT
    host = {unit: BACKENDS[unit] for unit in units if BACKENDS[unit].device == HOST}
    partitions = [unit for unit, one in host.items() if one.codegen and orders <= one.orders]
    kernels = [unit for unit, one in host.items() if not one.codegen]
    return next(iter((*partitions, *kernels)), HOST_UNIT)


def _crossings(tensors: Sequence[Tensor], units: Sequence[str]) -> Iterator[BoundaryProbe]:
    """Yield the hand-overs between units of one memory.

    They pass tensors by reference: the price is that of one more call, whatever the size.
    """
    runtimes = dict.fromkeys(BACKENDS[unit].runtime for unit in units)
    for source, destination in permutations(runtimes, 2):
        if BACKENDS[source].device == BACKENDS[destination].device:
            yield from _at_extremes(tensors, source, destination)


def _copies(
    tensors: Sequence[Tensor], placed_units: Sequence[str], alike: Mapping[DeviceId, DeviceId]
) -> Iterator[BoundaryProbe]:
    """Yield the copies between memories, with one unit of each; the price grows with the size."""
    found = [parse_placed_unit(unit) for unit in (HOST_UNIT, *placed_units)]
    unit_of = {device.kind: unit for unit, device in reversed(found)}
    devices = dict.fromkeys(device for _, device in found)
    pairs = dict.fromkeys(pair_alike(*pair, alike) for pair in permutations(devices, 2))
    for pair in pairs:
        ends = (placed_unit(unit_of[one.kind], one.node, one.index) for one in pair)
        yield from _at_extremes(tensors, *ends)


def _at_extremes(
    tensors: Sequence[Tensor], source: str, destination: str
) -> Iterator[BoundaryProbe]:
    """Yield the crossings of the smallest and of the largest tensor."""
    most = max((tensor.bytes for tensor in tensors), default=64)
    smallest = BoundaryTensor(shape=(1, 16), dtype="float32", bytes=64)
    largest = BoundaryTensor(shape=(1, most // 4), dtype="float32", bytes=most)
    for spec in (smallest, largest):
        yield BoundaryProbe(
            kind="crossing", source=source, destination=destination, tensor=spec, unit=destination
        )


def _legal(tensor: Tensor, layouts: Iterable[str]) -> set[str]:
    return {PLAIN} | {layout for layout in layouts if tensor_layout(tensor.shape, layout) == layout}


def _representatives(tensors: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield feature maps of distinct sizes, evenly spread from the smallest to the largest."""
    yield from _spread({t.bytes: t for t in tensors if len(t.shape) == 4 and t.dtype == "float32"})


def _spread(by_size: Mapping[int, Tensor]) -> Iterator[Tensor]:
    """Yield at most :data:`SIZES` tensors, evenly spread by size."""
    ordered = [by_size[size] for size in sorted(by_size)]
    step = max(1.0, (len(ordered) - 1) / (SIZES - 1))
    chosen = {round(index * step) for index in range(SIZES)}
    yield from (ordered[index] for index in sorted(chosen) if index < len(ordered))


def _is_known(store: Store, boundary: BoundaryProbe) -> bool:
    known = store.boundary(boundary.kind, boundary.source, boundary.destination, boundary.tensor)
    return known is not None and known.source == "measured"


def _measure(boundary: BoundaryProbe, store: Store, worker: Worker, threads: int) -> Outcome:
    reply = worker.call(boundary.payload(threads))
    if not isinstance(reply, Reply):
        return reply
    us, spread_us, runs = reply.value
    timing = Timing(us=us, spread_us=spread_us, runs=runs)
    store.put_boundary(
        boundary.kind, boundary.source, boundary.destination, boundary.tensor, timing
    )
    return timing
