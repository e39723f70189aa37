"""Named, versioned features of (sub-graph, decision, machine), for learned cost models.

All extents and rates are taken as base-2 logarithms: times scale with products of them. Features that follow from the
work alone never fall when the work grows, so that a model which is monotone in them is monotone in the work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log2, prod

import numpy as np

from layoutsel.cost.device_peaks import RESULTS_PER_UNIT, DevicePeaks
from layoutsel.cost.model import Workload
from layoutsel.cost.roofline import STORED, RooflineCost
from layoutsel.cost.samples import MachineProfile
from tvm_passes.decision import Decision

VERSION = 4
"""Of the meaning of the names below; a trained model states the one that it was trained with."""

_ANCHORS = (
    *("nn.conv2d", "matmul", "nn.max_pool2d", "nn.avg_pool2d", "nn.adaptive_avg_pool2d", "mean"),
    *("elementwise", "concat", "nn.softmax", "nn.layer_norm", "lrn", "movement"),
    *("nn.conv2d_transpose", "image.resize2d", "take", "strided_slice", "split", "sum", "variance"),
)
_TRANSCENDENTAL = frozenset(
    {"nn.silu", "nn.gelu", "nn.gelu_tanh", "sigmoid", "tanh", "exp", "erf", "nn.softmax", "power"}
)
_VIEWS = frozenset({"reshape", "squeeze", "expand_dims"})
_LAYOUTS = ("NCHW", "NHWC", "NCHW8c", "NCHW16c", "NCHW32c")
_PRECISIONS = ("bf16", "split-bf16", "int8")
_ALGORITHMS = ("direct", "winograd", "winograd2", "tuned", "square", "tall", "wide")
_KERNELS = tuple(
    f"kernel_{name}"
    for name in (
        *("direct", "winograd", "stream", "batched", "window", "rows", "nest", "fallback"),
        "amx",
    )
)
_IMPLEMENTATIONS = (
    *(f"convolution_{n}" for n in ("brgconv", "brgconv_1x1", "jit", "jit_1x1", "x64_gemm_jit")),
    *(f"convolution_{n}" for n in ("brdgmm_dw", "jit_dw", "ref")),
    *("matmul_brg", "matmul_gemm_jit", "matmul_ref", "deconvolution_jit", "deconvolution_conv"),
    *("pooling_jit", "pooling_simple_nhwc", "pooling_simple_nchw", "lrn_lrn_jit", "lrn_ref"),
    *("softmax_jit", "softmax_ref", "layer_normalization_jit", "layer_normalization_simple"),
    *("binary_jit", "eltwise_jit", "concat_simple", "concat_ref", "reduction_jit", "reduction_ref"),
    *("reorder_jit", "reorder_jit_blk", "reorder_simple"),
)
"""Hints that count primitives."""
_BLOCKING = (
    *("cycles", "tasks", "tile_width", "tile_vectors", "task_rows", "row", "channel_block"),
    *("lanes", "taps", "tile_block", "nests", "primitives", "read_bytes", "written_bytes"),
    *("products", "tile_pixels", "tile_channels", "tile_rows", "copied", "parts"),
)
"""Hints that are extents."""
_SHARES = ("lanes_filled", "pixels_used", "fused", "across_channels", "mergeable", "pixels_first")
"""Hints that are taken as they are."""


@dataclass(frozen=True)
class Asked:
    """What is to be priced."""

    workload: Workload
    decision: Decision
    profile: MachineProfile

    @cached_property
    def hints(self) -> Mapping[str, float]:
        """What the unit says of its code."""
        return self.workload.hints.get(str(self.decision), {})

    @property
    def device(self) -> DevicePeaks | None:
        """The device that the decision's unit computes on; None where that is the host."""
        return self.profile.devices.get(self.decision.unit)

    @cached_property
    def image(self) -> tuple[int, int, int, int]:
        """Batch, channels, height and width of the first input."""
        return _as_image(self.workload.inputs[0] if self.workload.inputs else ())

    @cached_property
    def result(self) -> tuple[int, int, int, int]:
        """Batch, channels, height and width of the first result."""
        return _as_image(self.workload.outputs[0] if self.workload.outputs else ())

    @cached_property
    def kernel(self) -> tuple[int, int]:
        """Extents of the window."""
        attributes = self.workload.attributes
        # Weights that are computed at run time are an input.
        weights = self.workload.weights or self.workload.inputs[1:]
        if attributes.get("pool_size"):
            return _pair(attributes["pool_size"])
        if self.workload.operator.startswith("nn.conv2d") and weights and len(weights[0]) == 4:
            return weights[0][2], weights[0][3]
        return 1, 1

    @cached_property
    def groups(self) -> int:
        """Groups of a convolution."""
        return _first(self, "groups", 1)

    @cached_property
    def depth(self) -> int:
        """Length of the reduction of one result."""
        work = self.workload
        if work.operator == "matmul" and work.inputs:
            return work.inputs[0][-1] if work.inputs[0] else 1
        window = prod(self.kernel)
        if work.operator.startswith("nn.conv2d"):
            return window * max(self.image[1] // max(self.groups, 1), 1)
        return window

    @cached_property
    def margin(self) -> float:
        """Natural logarithm of the roofline's microseconds."""
        estimate = RooflineCost.of(self.profile).estimate(self.workload, self.decision)
        return float(np.log(estimate.us))


Feature = Callable[[Asked], float]


def _log(value: float) -> float:
    return log2(max(value, 1e-3))


def _as_image(shape: Sequence[int]) -> tuple[int, int, int, int]:
    """Rows of tokens are pixels: channels are the last axis but for images."""
    if len(shape) == 4:
        return shape[0], shape[1], shape[2], shape[3]
    return 1, (shape[-1] if shape else 1), 1, prod(shape[:-1])


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return values[0], values[-1]


def _first(asked: Asked, attribute: str, default: int) -> int:
    return (asked.workload.attributes.get(attribute) or (default,))[0]


def _count(asked: Asked, names: frozenset[str]) -> int:
    return sum(operator in names for operator in asked.workload.operators)


def _filled(channels: int, block: int) -> float:
    """Part of the lanes that is used where channels are cut into blocks."""
    return channels / (block * -(-channels // block)) if channels > 0 else 1.0


def _size(shape: Sequence[int]) -> float:
    return 4.0 * prod(shape)


def _run(asked: Asked) -> float:
    """How many elements of a permutation's input stay beside each other, as a logarithm; -1 without one."""
    attributes = asked.workload.attributes
    shape, axes = attributes.get("permuted"), attributes.get("axes", ())
    if shape is None or len(axes) != len(shape):
        return -1.0
    run, axis = 1, len(shape) - 1
    while axis >= 0 and axes[axis] == axis:
        run, axis = run * shape[axis], axis - 1
    return _log(run)


def _equals(of: Callable[[Asked], str], name: str) -> Feature:
    return lambda asked: float(of(asked) == name)


def _hint(name: str, absent: float) -> Feature:
    return lambda asked: asked.hints.get(name, absent)


def _hinted_extent(name: str) -> Feature:
    return lambda asked: _log(asked.hints.get(name, 0.0))


def _alignment(extent: int) -> int:
    """How often two divides it, up to 64: aliasing and odd tails depend on that."""
    return min((extent & -extent).bit_length() - 1, 6) if extent > 0 else 0


def _balance(asked: Asked) -> float:
    """Part of the time that threads work, tasks being equal."""
    tasks, threads = asked.hints.get("tasks", 0.0), asked.profile.threads
    return tasks / (threads * -(-tasks // threads)) if tasks > 0 else 1.0


def _cycles_per_step(asked: Asked) -> float:
    """The kernel's own estimate against its multiply-adds at two vectors per cycle and thread."""
    macs = _steps(asked) / (2 * asked.profile.lanes * asked.profile.threads)
    cycles = asked.hints.get("cycles", 0.0)
    return _log(cycles / max(macs, 1.0)) if cycles else 0.0


def _steps(asked: Asked) -> float:
    """Multiply-adds, or what there is instead."""
    return prod(asked.result) * asked.depth


def _all_bytes(asked: Asked) -> float:
    work = asked.workload
    return max(_bytes_of([*work.inputs, *work.weights, *work.outputs]), 1.0)


def _bytes_of(shapes: Sequence[Sequence[int]]) -> float:
    return 4.0 * sum(prod(shape) for shape in shapes)


def _compute_us(asked: Asked) -> float:
    return asked.workload.flops / asked.profile.peaks.gflops * 1e-3


_FEATURES: dict[str, Feature] = {
    # The work, in what grows with it.
    "flops": lambda a: _log(a.workload.flops),
    "weight_bytes": lambda a: _log(a.workload.weight_bytes),
    "activation_bytes": lambda a: _log(a.workload.activation_bytes),
    "compute_us": lambda a: _log(_compute_us(a)),
    # Its shape.
    "input_bytes": lambda a: _log(_bytes_of(a.workload.inputs)),
    "output_bytes": lambda a: _log(_bytes_of(a.workload.outputs)),
    "inputs": lambda a: len(a.workload.inputs),
    "rank": lambda a: len(a.workload.outputs[0]) if a.workload.outputs else 0,
    "batch": lambda a: _log(a.image[0]),
    "in_channels": lambda a: _log(a.image[1]),
    "in_pixels": lambda a: _log(a.image[2] * a.image[3]),
    "out_channels": lambda a: _log(a.result[1]),
    "out_height": lambda a: _log(a.result[2]),
    "out_width": lambda a: _log(a.result[3]),
    "out_pixels": lambda a: _log(a.result[2] * a.result[3]),
    "kernel_height": lambda a: a.kernel[0],
    "kernel_width": lambda a: a.kernel[1],
    "stride": lambda a: _first(a, "strides", 1),
    "padding": lambda a: _first(a, "padding", 0),
    "dilation": lambda a: _first(a, "dilation", 1),
    "groups": lambda a: _log(a.groups),
    "group_channels": lambda a: _log(a.image[1] / max(a.groups, 1)),
    "depth": lambda a: _log(a.depth),
    "intensity": lambda a: _log(2 * _steps(a) / _all_bytes(a)),
    "reuse": lambda a: _log(_steps(a) / max(_bytes_of(a.workload.inputs) / 4, 1.0)),
    # What is fused behind the anchor.
    "operators": lambda a: len(a.workload.operators),
    "transcendental": lambda a: _count(a, _TRANSCENDENTAL),
    "reshapes": lambda a: _count(a, _VIEWS),
    "views": lambda a: float(_VIEWS.issuperset(a.workload.operators)),
    "permutes": lambda a: _count(a, frozenset({"permute_dims"})),
    "run": _run,
    "reduced_axis": lambda a: _first(a, "axis", 0),
    "smallest_input_bytes": lambda a: _log(min(map(_size, a.workload.inputs), default=0.0)),
    "clips": lambda a: _count(a, frozenset({"clip", "nn.relu", "maximum", "minimum"})),
    "arithmetic": lambda a: _count(a, frozenset({"add", "subtract", "multiply", "divide"})),
    "operands": lambda a: len(a.workload.inputs) + len(a.workload.weights),
    # The decision.
    "in_filled": lambda a: _filled(a.image[1], a.profile.lanes),
    "out_filled": lambda a: _filled(a.result[1], a.profile.lanes),
    "width_filled": lambda a: _filled(a.result[3], a.profile.lanes),
    "in_alignment": lambda a: _alignment(a.image[1]),
    "out_alignment": lambda a: _alignment(a.result[1]),
    "width_alignment": lambda a: _alignment(a.result[3]),
    "balance": _balance,
    "task_steps": lambda a: _log(_steps(a) / max(a.hints.get("tasks", 1.0), 1.0)),
    "cycles_per_step": _cycles_per_step,
    # The machine, by itself and beside the work.
    "threads": lambda a: a.profile.threads,
    "machine_lanes": lambda a: a.profile.lanes,
    "gflops": lambda a: _log(a.profile.peaks.gflops),
    "memory_gbps": lambda a: _log(a.profile.peaks.memory_gbps),
    "cache_gbps": lambda a: _log(a.profile.peaks.cache_gbps),
    "weights_in_l2": lambda a: _log(a.workload.weight_bytes / a.profile.peaks.cache_bytes),
    "activations_in_l2": lambda a: _log(a.workload.activation_bytes / a.profile.peaks.cache_bytes),
    "stored_in_l2": lambda a: _log(
        STORED.get(a.decision.precision, 1.0)
        * (a.workload.weight_bytes + a.workload.activation_bytes)
        / a.profile.peaks.cache_bytes
    ),
    **{f"anchor_{n}": _equals(lambda a: a.workload.operator, n) for n in _ANCHORS},
    **{f"layout_{n}": _equals(lambda a: a.decision.layout, n) for n in _LAYOUTS},
    **{f"precision_{n}": _equals(lambda a: a.decision.precision, n) for n in _PRECISIONS},
    **{f"algorithm_{n}": _equals(lambda a: a.decision.algorithm, n) for n in _ALGORITHMS},
    **{name: _hint(name, 0.0) for name in (*_KERNELS, *_IMPLEMENTATIONS)},
    **{f"hint_{name}": _hinted_extent(name) for name in _BLOCKING},
    **{f"hint_{name}": _hint(name, -1.0) for name in _SHARES},
}

NAMES = tuple(_FEATURES)
"""In the order of :func:`features`."""

_OF_DEVICE: dict[str, Callable[[Asked, DevicePeaks], float]] = {
    "device_compute_us": lambda a, d: _log(a.workload.flops / d.gflops * 1e-3),
    "device_memory_us": lambda a, d: _log(_all_bytes(a) / d.memory_gbps * 1e-3),
    "device_filled": lambda a, d: _log(prod(a.result) / (d.compute_units * RESULTS_PER_UNIT)),
    "device_compute_units": lambda _, d: _log(d.compute_units),
    "device_clock_mhz": lambda _, d: _log(d.clock_mhz),
    "device_gflops": lambda _, d: _log(d.gflops),
    "device_half_gflops": lambda _, d: _log(d.half_gflops or d.gflops),
    "device_memory_gbps": lambda _, d: _log(d.memory_gbps),
    "device_launch_us": lambda _, d: _log(d.launch_us),
    "device_layout_NCHW4c": lambda a, _: float(a.decision.layout == "NCHW4c"),
}
DEVICE_NAMES = tuple(_OF_DEVICE)
"""Of units on devices, behind :data:`NAMES`."""

MONOTONE = frozenset(
    {
        *("flops", "weight_bytes", "activation_bytes", "compute_us"),
        *("weights_in_l2", "activations_in_l2", "stored_in_l2", "hint_products"),
        *("device_compute_us", "device_memory_us"),
    }
)
"""More of these, all else equal, is never faster."""


def features(asked: Asked) -> np.ndarray:
    """Values of :data:`NAMES`, and of :data:`DEVICE_NAMES` where the unit is on a device; float32."""
    values = [feature(asked) for feature in _FEATURES.values()]
    if asked.device is not None:
        values += [feature(asked, asked.device) for feature in _OF_DEVICE.values()]
    return np.array(values, dtype=np.float32)


def feature_table(asked: Sequence[Asked]) -> tuple[np.ndarray, np.ndarray]:
    """Features by row, and the logarithm of the roofline of each; all on devices, or none."""
    if not asked:
        return np.zeros((0, len(NAMES)), np.float32), np.zeros(0, np.float32)
    rows = np.stack([features(one) for one in asked])
    return rows, np.array([one.margin for one in asked], dtype=np.float32)
