"""Features of sub-graphs on machines that no decision changes: work, shapes and machine."""

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
"""Substitute for 0 in logarithms."""

Shape = tuple[int, ...]
"""Shape of a tensor, or values of an attribute."""


class _Counts(NamedTuple):
    """Counts of operators of each kind in a sub-graph."""

    operators: int
    """Number of all operators."""
    transcendental: int
    """Number of transcendental functions, such as exponentials."""
    reshapes: int
    """Number of reshapes and other views."""
    views: float
    """1 if all operators are views, else 0."""
    permutes: int
    """Number of permutations."""
    clips: int
    """Number of clips."""
    arithmetic: int
    """Number of arithmetic operators."""


class _Extents(NamedTuple):
    """Sizes and extents of a sub-graph, from its shapes and attributes."""

    flops: float
    """Number of arithmetic operations."""
    weight_bytes: float
    """Bytes of weights read in one run."""
    activation_bytes: float
    """Bytes of activations read and written."""
    input_bytes: float
    """Bytes of the activations read, as f32."""
    output_bytes: float
    """Bytes of the results, as f32."""
    smallest_input_bytes: float
    """Bytes of the smallest activation read, as f32."""
    all_bytes: float
    """Bytes of all activations, weights and results, as f32."""
    inputs: int
    """Number of activations read."""
    operands: int
    """Number of activations read and weights."""
    rank: int
    """Rank of the first result."""
    batch: int
    """Batch extent of the first input, seen as an image."""
    in_channels: int
    """Channels of the first input, seen as an image."""
    in_pixels: int
    """Pixels of the first input, seen as an image."""
    out_batch: int
    """Batch extent of the first result, seen as an image."""
    out_channels: int
    """Channels of the first result, seen as an image."""
    out_height: int
    """Height of the first result, seen as an image."""
    out_width: int
    """Width of the first result, seen as an image."""
    kernel_height: int
    """Height of the window; 1 without one."""
    kernel_width: int
    """Width of the window; 1 without one."""
    stride: int
    """First stride; 1 without one."""
    padding: int
    """First padding; 0 without one."""
    dilation: int
    """First dilation; 1 without one."""
    groups: int
    """Number of groups of a convolution; 1 without groups."""
    depth: int
    """Length of the reduction of one result."""
    run: float
    """Base-2 logarithm of the contiguous elements that a permutation moves; -1 without one."""
    reduced_axis: int
    """First entry of the attribute ``axis``; 0 without one."""
    in_alignment: int
    """Exponent of two in `in_channels`, at most 6."""
    out_alignment: int
    """Exponent of two in `out_channels`, at most 6."""
    width_alignment: int
    """Exponent of two in `out_width`, at most 6."""


class _Ceilings(NamedTuple):
    """Peaks of a machine."""

    threads: int
    """Number of threads that compute."""
    lanes: int
    """Number of floats in a vector register."""
    gflops: float
    """Attained rate of a large f32 matrix product, GFLOP/s."""
    memory_gbps: float
    """Read bandwidth of the memory, GB/s."""
    cache_gbps: float
    """Read bandwidth of the cache, GB/s."""
    cache_bytes: float
    """Maximum size of tensors that stay in cache, bytes."""


@dataclass(frozen=True)
class Columns:
    """Inputs of the features, as columns; each row is one sub-graph on one machine."""

    values: Mapping[str, np.ndarray]
    """Columns by the field names of :class:`_Extents`, :class:`_Counts` and :class:`_Ceilings`."""

    @classmethod
    def of(cls, subjects: Sequence[tuple[Workload, MachineProfile]]) -> Columns:
        """Fill the columns from each sub-graph and its machine."""
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
        """Select rows by index; an index may repeat."""
        return Columns({name: column[rows] for name, column in self.values.items()})

    @property
    def results(self) -> np.ndarray:
        """Number of elements of the first result."""
        return self["out_batch"] * self["out_channels"] * self["out_height"] * self["out_width"]

    @property
    def steps(self) -> np.ndarray:
        """Number of result elements, times the elements that each of them sums up."""
        return self.results * self["depth"]

    def log(self, name: str) -> np.ndarray:
        """Compute the base-2 logarithm of a column, finite for 0."""
        return log_of(self[name])


Feature = Callable[[Columns], np.ndarray]
"""Function that computes the values of one feature, one for each row."""


def log_of(values: np.ndarray) -> np.ndarray:
    """Compute base-2 logarithms, finite for 0."""
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
    """Extend a shape to batch, channels, height and width.

    Rows of tokens count as pixels: channels are the last axis unless the tensor is an image.
    """
    if len(shape) == 4:
        return shape[0], shape[1], shape[2], shape[3]
    return 1, (shape[-1] if shape else 1), 1, prod(shape[:-1])


def _first(attributes: Mapping[str, Shape], name: str, default: int) -> int:
    return (attributes.get(name) or (default,))[0]


def _kernel(work: Workload) -> tuple[int, int]:
    """Return height and width of the window; 1 and 1 without one."""
    pool = work.attributes.get("pool_size")
    if pool:
        return pool[0], pool[-1]
    # Weights computed at run time are an input.
    weights = work.weights or work.inputs[1:]
    if work.operator.startswith("nn.conv2d") and weights and len(weights[0]) == 4:
        return weights[0][2], weights[0][3]
    return 1, 1


def _depth(work: Workload, kernel: tuple[int, int], channels: int, groups: int) -> int:
    """Return the length of the reduction of one result."""
    if work.operator == "matmul" and work.inputs:
        return work.inputs[0][-1] if work.inputs[0] else 1
    if work.operator.startswith("nn.conv2d"):
        return prod(kernel) * max(channels // max(groups, 1), 1)
    return prod(kernel)


def _run(attributes: Mapping[str, Shape]) -> float:
    """Return the base-2 logarithm of the contiguous elements of a permutation; -1 without one."""
    shape, axes = attributes.get("permuted"), attributes.get("axes", ())
    if shape is None or len(axes) != len(shape):
        return -1.0
    run, axis = 1, len(shape) - 1
    while axis >= 0 and axes[axis] == axis:
        run, axis = run * shape[axis], axis - 1
    return log2(max(run, _SMALLEST))


def _alignment(extent: int) -> int:
    """Return the exponent of two in an extent, at most 6: it affects aliasing and odd tails."""
    return min((extent & -extent).bit_length() - 1, 6) if extent > 0 else 0


def _filled(channels: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Compute the share of lanes in use if channels are divided into blocks."""
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
