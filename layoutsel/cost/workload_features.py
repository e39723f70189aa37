"""Features of sub-graphs on machines, whatever the decision: the work, its shapes, and the machine itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import log2, prod
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from layoutsel.core.workload import Workload
from layoutsel.cost.samples import MachineProfile
from tvm_passes.operators import CountedAs, find_operator

_SMALLEST = 1e-3
"""Stands for 0 in logarithms."""

Shape = tuple[int, ...]


class _Counts(NamedTuple):
    """Numbers of operators of each kind in a sub-graph."""

    operators: int
    transcendental: int
    reshapes: int
    views: float
    """1 where there is nothing else."""
    permutes: int
    clips: int
    arithmetic: int


class _Extents(NamedTuple):
    """Numbers that the shapes and attributes of a sub-graph give."""

    flops: float
    weight_bytes: float
    activation_bytes: float
    input_bytes: float
    output_bytes: float
    smallest_input_bytes: float
    all_bytes: float
    inputs: int
    operands: int
    rank: int
    batch: int
    in_channels: int
    in_pixels: int
    out_batch: int
    out_channels: int
    out_height: int
    out_width: int
    kernel_height: int
    kernel_width: int
    stride: int
    padding: int
    dilation: int
    groups: int
    depth: int
    """Length of the reduction of one result."""
    run: float
    """Logarithm of the number of elements that a permutation leaves side by side; -1 without one."""
    reduced_axis: int
    in_alignment: int
    out_alignment: int
    width_alignment: int


class _Ceilings(NamedTuple):
    """Numbers that describe a machine."""

    threads: int
    lanes: int
    gflops: float
    memory_gbps: float
    cache_gbps: float
    cache_bytes: float


@dataclass(frozen=True)
class Columns:
    """Sub-graphs on machines as columns of numbers, one row each."""

    values: Mapping[str, np.ndarray]
    """By the names of the fields of the tuples above."""

    @classmethod
    def of(cls, subjects: Sequence[tuple[Workload, MachineProfile]]) -> Columns:
        """Read the numbers of each sub-graph and machine."""
        machines = {id(profile): _ceilings(profile) for _, profile in subjects}
        rows = [
            (*_extents(work), *_counts(work.operators), *machines[id(profile)])
            for work, profile in subjects
        ]
        names = (*_Extents._fields, *_Counts._fields, *_Ceilings._fields)
        table = np.array(rows, np.float64).reshape(len(rows), len(names))
        return cls(dict(zip(names, table.T, strict=True)))

    def __getitem__(self, name: str) -> np.ndarray:
        return self.values[name]

    def take(self, rows: Sequence[int]) -> Columns:
        """Pick rows by number, each as often as it is named."""
        return Columns({name: column[rows] for name, column in self.values.items()})

    @property
    def results(self) -> np.ndarray:
        """Elements of the first result."""
        return self["out_batch"] * self["out_channels"] * self["out_height"] * self["out_width"]

    @property
    def steps(self) -> np.ndarray:
        """Multiply-adds, or as many results."""
        return self.results * self["depth"]

    def log(self, name: str) -> np.ndarray:
        """Base-2 logarithm of a column, finite for 0."""
        return log_of(self[name])


Feature = Callable[[Columns], np.ndarray]


def log_of(values: np.ndarray) -> np.ndarray:
    """Base-2 logarithms, finite for 0."""
    logarithms: np.ndarray = np.log2(np.maximum(values, _SMALLEST))
    return logarithms


@lru_cache(maxsize=4096)
def _counts(operators: tuple[str, ...]) -> _Counts:
    encodings = [find_operator(operator).encoding for operator in operators]
    kinds = Counter(encoding.counted_as for encoding in encodings if encoding is not None)
    views = kinds[CountedAs.VIEW]
    return _Counts(
        operators=len(operators),
        transcendental=kinds[CountedAs.TRANSCENDENTAL],
        reshapes=views,
        views=float(views == len(operators)),
        permutes=kinds[CountedAs.PERMUTATION],
        clips=kinds[CountedAs.CLIP],
        arithmetic=kinds[CountedAs.ARITHMETIC],
    )


def _extents(work: Workload) -> _Extents:
    attributes = work.attributes
    image = _as_image(work.inputs[0] if work.inputs else ())
    result = _as_image(work.outputs[0] if work.outputs else ())
    kernel, groups = _kernel(work), _first(attributes, "groups", 1)
    inputs, weights, outputs = (
        [4.0 * prod(shape) for shape in shapes]
        for shapes in (work.inputs, work.weights, work.outputs)
    )
    return _Extents(
        flops=work.flops,
        weight_bytes=work.weight_bytes,
        activation_bytes=work.activation_bytes,
        input_bytes=sum(inputs),
        output_bytes=sum(outputs),
        smallest_input_bytes=min(inputs, default=0.0),
        all_bytes=max(sum(inputs) + sum(weights) + sum(outputs), 1.0),
        inputs=len(inputs),
        operands=len(inputs) + len(weights),
        rank=len(work.outputs[0]) if work.outputs else 0,
        batch=image[0],
        in_channels=image[1],
        in_pixels=image[2] * image[3],
        out_batch=result[0],
        out_channels=result[1],
        out_height=result[2],
        out_width=result[3],
        kernel_height=kernel[0],
        kernel_width=kernel[1],
        stride=_first(attributes, "strides", 1),
        padding=_first(attributes, "padding", 0),
        dilation=_first(attributes, "dilation", 1),
        groups=groups,
        depth=_depth(work, kernel, image[1], groups),
        run=_run(attributes),
        reduced_axis=_first(attributes, "axis", 0),
        in_alignment=_alignment(image[1]),
        out_alignment=_alignment(result[1]),
        width_alignment=_alignment(result[3]),
    )


def _ceilings(profile: MachineProfile) -> _Ceilings:
    peaks = profile.peaks
    return _Ceilings(
        threads=profile.threads,
        lanes=profile.lanes,
        gflops=peaks.gflops,
        memory_gbps=peaks.memory_gbps,
        cache_gbps=peaks.cache_gbps,
        cache_bytes=peaks.cache_bytes,
    )


def _as_image(shape: Shape) -> tuple[int, int, int, int]:
    """Rows of tokens are pixels: channels are the last axis of anything but an image."""
    if len(shape) == 4:
        return shape[0], shape[1], shape[2], shape[3]
    return 1, (shape[-1] if shape else 1), 1, prod(shape[:-1])


def _first(attributes: Mapping[str, Shape], name: str, default: int) -> int:
    return (attributes.get(name) or (default,))[0]


def _kernel(work: Workload) -> tuple[int, int]:
    """Extents of the window."""
    pool = work.attributes.get("pool_size")
    if pool:
        return pool[0], pool[-1]
    # Weights that are computed at run time are an input.
    weights = work.weights or work.inputs[1:]
    if work.operator.startswith("nn.conv2d") and weights and len(weights[0]) == 4:
        return weights[0][2], weights[0][3]
    return 1, 1


def _depth(work: Workload, kernel: tuple[int, int], channels: int, groups: int) -> int:
    """Length of the reduction of one result."""
    if work.operator == "matmul" and work.inputs:
        return work.inputs[0][-1] if work.inputs[0] else 1
    if work.operator.startswith("nn.conv2d"):
        return prod(kernel) * max(channels // max(groups, 1), 1)
    return prod(kernel)


def _run(attributes: Mapping[str, Shape]) -> float:
    """Logarithm of the number of elements that a permutation leaves side by side; -1 without one."""
    shape, axes = attributes.get("permuted"), attributes.get("axes", ())
    if shape is None or len(axes) != len(shape):
        return -1.0
    run, axis = 1, len(shape) - 1
    while axis >= 0 and axes[axis] == axis:
        run, axis = run * shape[axis], axis - 1
    return log2(max(run, _SMALLEST))


def _alignment(extent: int) -> int:
    """Exponent of two in it, up to 6: aliasing and odd tails depend on that."""
    return min((extent & -extent).bit_length() - 1, 6) if extent > 0 else 0


def _filled(channels: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Part of the lanes that is used where channels are cut into blocks."""
    whole = block * np.ceil(channels / block)
    return np.divide(channels, whole, out=np.ones_like(channels), where=channels > 0)


def _log(name: str) -> Feature:
    return lambda c: c.log(name)


def _plain(name: str) -> Feature:
    return lambda c: c[name]


WORK: Mapping[str, Feature] = MappingProxyType(
    {
        # Quantities that grow with the work.
        **{name: _log(name) for name in ("flops", "weight_bytes", "activation_bytes")},
        "compute_us": lambda c: log_of(c["flops"] / c["gflops"] * 1e-3),
        # Its shape.
        **{name: _log(name) for name in ("input_bytes", "output_bytes")},
        **{name: _plain(name) for name in ("inputs", "rank")},
        **{name: _log(name) for name in ("batch", "in_channels", "in_pixels")},
        **{name: _log(name) for name in ("out_channels", "out_height", "out_width")},
        "out_pixels": lambda c: log_of(c["out_height"] * c["out_width"]),
        **{name: _plain(name) for name in ("kernel_height", "kernel_width")},
        **{name: _plain(name) for name in ("stride", "padding", "dilation")},
        "groups": _log("groups"),
        "group_channels": lambda c: log_of(c["in_channels"] / np.maximum(c["groups"], 1)),
        "depth": _log("depth"),
        "intensity": lambda c: log_of(2 * c.steps / c["all_bytes"]),
        "reuse": lambda c: log_of(c.steps / np.maximum(c["input_bytes"] / 4, 1.0)),
        # Operators fused after the anchor.
        **{name: _plain(name) for name in ("operators", "transcendental", "reshapes", "views")},
        **{name: _plain(name) for name in ("permutes", "run", "reduced_axis")},
        "smallest_input_bytes": _log("smallest_input_bytes"),
        **{name: _plain(name) for name in ("clips", "arithmetic", "operands")},
        # Vectors and blocks that the extents fill.
        "in_filled": lambda c: _filled(c["in_channels"], c["lanes"]),
        "out_filled": lambda c: _filled(c["out_channels"], c["lanes"]),
        "width_filled": lambda c: _filled(c["out_width"], c["lanes"]),
        **{name: _plain(name) for name in ("in_alignment", "out_alignment", "width_alignment")},
    }
)
"""Features of the work and its shapes, by name."""

MACHINE: Mapping[str, Feature] = MappingProxyType(
    {
        "threads": _plain("threads"),
        "machine_lanes": _plain("lanes"),
        **{name: _log(name) for name in ("gflops", "memory_gbps", "cache_gbps")},
        "weights_in_l2": lambda c: log_of(c["weight_bytes"] / c["cache_bytes"]),
        "activations_in_l2": lambda c: log_of(c["activation_bytes"] / c["cache_bytes"]),
    }
)
"""Features of the machine, by itself and relative to the work, by name."""
