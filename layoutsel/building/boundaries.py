"""What boundaries cost, measured: layout transforms at a few sizes, and the hand-over between units."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any

from layoutsel.cost.model import TensorSpec
from layoutsel.cost.store import Store, Timing
from layoutsel.cost.worker import Reply, Worker
from layoutsel.planning.problem import Tensor
from tvm_passes.backends import BACKENDS
from tvm_passes.layout import PLAIN, tensor_layout

SIZES = 6
"""Tensors measured per pair of layouts; sizes between them are interpolated by bytes."""


def measure_boundaries(
    tensors: Sequence[Tensor],
    layouts: Sequence[str],
    units: Sequence[str],
    store: Store,
    worker: Worker,
    threads: int,
) -> None:
    """Measure what `store` lacks: transforms between `layouts` for a few of `tensors`, crossings between `units`.

    A boundary that cannot be measured is left to the estimate.
    """
    transformer = next((unit for unit in units if BACKENDS[unit].codegen), units[0])
    for tensor in _representatives(tensors):
        spec = TensorSpec(shape=tensor.shape, dtype=tensor.dtype, bytes=tensor.bytes)
        for source, destination in permutations(layouts, 2):
            if source in _legal(tensor, layouts) and destination in _legal(tensor, layouts):
                payload = {
                    "kind": "transform",
                    "shape": tensor.shape,
                    "dtype": tensor.dtype,
                    "unit": transformer,
                }
                _measure("transform", source, destination, spec, payload, store, worker, threads)
    # Units of one machine pass tensors by reference: the price is that of one call more, whatever the size.
    smallest = TensorSpec(shape=(1, 16), dtype="float32", bytes=64)
    largest = TensorSpec(
        shape=(1, 1), dtype="float32", bytes=max((t.bytes for t in tensors), default=64)
    )
    for source, destination in permutations(units, 2):
        for spec in (smallest, largest):
            payload = {"kind": "crossing"}
            _measure("crossing", source, destination, spec, payload, store, worker, threads)


def _legal(tensor: Tensor, layouts: Iterable[str]) -> set[str]:
    return {PLAIN} | {layout for layout in layouts if tensor_layout(tensor.shape, layout) == layout}


def _representatives(tensors: Sequence[Tensor]) -> Iterator[Tensor]:
    """Feature maps of distinct sizes, evenly spread from the smallest to the largest."""
    maps = {t.bytes: t for t in tensors if len(t.shape) == 4 and t.dtype == "float32"}
    ordered = [maps[size] for size in sorted(maps)]
    step = max(1.0, (len(ordered) - 1) / (SIZES - 1))
    chosen = {round(index * step) for index in range(SIZES)}
    yield from (ordered[index] for index in sorted(chosen) if index < len(ordered))


def _measure(
    kind: str,
    source: str,
    destination: str,
    spec: TensorSpec,
    payload: Mapping[str, Any],
    store: Store,
    worker: Worker,
    threads: int,
) -> None:
    known = store.boundary(kind, source, destination, spec)
    if known is not None and known.source == "measured":
        return
    reply = worker.call(
        {**payload, "source": source, "destination": destination, "threads": threads}
    )
    if isinstance(reply, Reply):
        median_us, spread_us, runs = reply.value
        timing = Timing(median_us=median_us, spread_us=spread_us, runs=runs)
        store.put_boundary(kind, source, destination, spec, timing)
