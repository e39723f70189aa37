"""Named, versioned features of (sub-graph, decision, machine) for learned cost models.

All extents and rates are base-2 logarithms, because times scale with products of them. Features of
the work alone never fall when the work grows, so that a model which is monotone in them is monotone
in the work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from layoutsel.core.precision import relative_bytes
from layoutsel.core.workload import Workload
from layoutsel.cost.device_peaks import RESULTS_PER_UNIT, DevicePeaks
from layoutsel.cost.roofline import RooflineCost
from layoutsel.cost.samples import MachineProfile
from layoutsel.cost.workload_features import MACHINE, WORK, Columns, log_of
from tvm_passes.algorithms import algorithm_of
from tvm_passes.decision import Decision
from tvm_passes.layouts import encoded_layouts, own_layouts
from tvm_passes.operators import OPERATORS
from tvm_passes.precisions import encoded_precisions

VERSION = 5
"""Version of the names and meanings of the features; a trained model states its own."""

_KINDS: Mapping[str, int] = MappingProxyType({"elementwise": 6, "lrn": 10, "movement": 11})
"""Positions among the anchors of the sub-graphs that no single operator starts."""


def _anchors() -> tuple[str, ...]:
    """List the anchors with a feature of their own, in order of their features."""
    encodings = {name: entry.encoding for name, entry in OPERATORS.items() if entry.encoding}
    places = {name: one.anchor for name, one in encodings.items() if one.anchor is not None}
    positions = {**places, **_KINDS}
    return tuple(sorted(positions, key=positions.__getitem__))


_ANCHORS = _anchors()
_ALGORITHMS = ("direct", "winograd", "winograd2", "tuned", "square", "tall", "wide")
"""Words of the algorithms that have a feature of their own."""
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
    *("resampling_jit", "matmul_gemm_jit_f32", "lrn_jit", "binary_ref", "convolution_jit_bf16"),
    *("deconvolution_conv_gemm_jit", "deconvolution_brg_conv"),
)
"""Names of hints that count primitives, by implementation."""
_BLOCKING = (
    *("cycles", "tasks", "tile_width", "tile_vectors", "task_rows", "row", "channel_block"),
    *("lanes", "taps", "tile_block", "nests", "primitives", "read_bytes", "written_bytes"),
    *("products", "tile_pixels", "tile_channels", "tile_rows", "copied", "parts"),
)
"""Names of hints that are extents; features hold their logarithms."""
_SHARES = ("lanes_filled", "pixels_used", "fused", "across_channels", "mergeable", "pixels_first")
"""Names of hints that features hold unchanged."""


@dataclass(frozen=True)
class PricingQuestion:
    """A candidate on a machine, to be priced."""

    workload: Workload
    """Features of the sub-graph."""
    decision: Decision
    """Decision of the candidate."""
    profile: MachineProfile
    """Machine that runs the candidate."""

    @property
    def hints(self) -> Mapping[str, float]:
        """Facts that the unit states about its code, by name."""
        return self.workload.hints_of(self.decision)

    @property
    def device(self) -> DevicePeaks | None:
        """Peaks of the decision's device; None for the host."""
        return self.profile.device(self.decision.device)


@dataclass(frozen=True)
class _Code:
    """Facts about the code of candidates, one row each."""

    work: Columns
    """Numbers of the sub-graphs."""
    tasks: np.ndarray
    """Number of tasks that threads share; 0 if unknown."""
    cycles: np.ndarray
    """Cycles as estimated by the kernel itself; 0 if unknown."""
    stored: np.ndarray
    """Size of a stored tensor relative to f32."""

    @classmethod
    def of(
        cls, asked: Sequence[PricingQuestion], work: Columns, hints: Sequence[Mapping[str, float]]
    ) -> _Code:
        """Read the hints and precisions of candidates."""
        return cls(
            work,
            tasks=np.array([found.get("tasks", 0.0) for found in hints]),
            cycles=np.array([found.get("cycles", 0.0) for found in hints]),
            stored=np.array([relative_bytes(one.decision.precision) for one in asked]),
        )


def _balance(code: _Code) -> np.ndarray:
    """Compute the share of time that threads work, if all tasks take equally long."""
    threads = code.work["threads"]
    whole = threads * np.ceil(code.tasks / threads)
    return np.divide(code.tasks, whole, out=np.ones_like(whole), where=code.tasks > 0)


def _task_steps(code: _Code) -> np.ndarray:
    """Compute the logarithm of the multiply-adds of one task."""
    tasks = np.where(code.tasks == 0.0, 1.0, code.tasks)
    return log_of(code.work.steps / np.maximum(tasks, 1.0))


def _cycles_per_step(code: _Code) -> np.ndarray:
    """Compute the logarithm of the kernel's estimated cycles relative to a lower bound.

    The bound is two vectors of multiply-adds per cycle and thread.
    """
    macs = code.work.steps / (2 * code.work["lanes"] * code.work["threads"])
    return np.where(code.cycles != 0.0, log_of(code.cycles / np.maximum(macs, 1.0)), 0.0)


def _stored_in_l2(code: _Code) -> np.ndarray:
    """Compute the logarithm of stored bytes relative to the second-level cache."""
    nbytes = code.work["weight_bytes"] + code.work["activation_bytes"]
    return log_of(code.stored * nbytes / code.work["cache_bytes"])


_OF_CODE: dict[str, Callable[[_Code], np.ndarray]] = {
    "balance": _balance,
    "task_steps": _task_steps,
    "cycles_per_step": _cycles_per_step,
}
_OF_STORAGE: dict[str, Callable[[_Code], np.ndarray]] = {"stored_in_l2": _stored_in_l2}

VOCABULARY: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "anchor": _ANCHORS,
        "layout": encoded_layouts(),
        "precision": encoded_precisions(),
        "algorithm": _ALGORITHMS,
    }
)
"""Names that have a feature of their own, by group.

Any other name encodes as "other": no feature of its group is set.
"""
CODE_HINTS = (*_KERNELS, *_IMPLEMENTATIONS)
NAMES = (
    *(*WORK, *_OF_CODE, *MACHINE, *_OF_STORAGE),
    *(f"{group}_{name}" for group, names in VOCABULARY.items() for name in names),
    *CODE_HINTS,
    *(f"hint_{name}" for name in (*_BLOCKING, *_SHARES)),
)
"""Names of the features of all units, in the order of the columns of :func:`feature_table`."""
_COLUMN = {name: column for column, name in enumerate(NAMES)}
_EXTENT_HINTS = {name: _COLUMN[f"hint_{name}"] for name in _BLOCKING}
_PLAIN_HINTS = {
    **{name: _COLUMN[name] for name in CODE_HINTS},
    **{name: _COLUMN[f"hint_{name}"] for name in _SHARES},
}
_BLOCKING_COLUMNS = list(_EXTENT_HINTS.values())
_SHARE_COLUMNS = [_PLAIN_HINTS[name] for name in _SHARES]

DEVICE_LAYOUTS = tuple(layout.name for layout in own_layouts() if layout.device_feature)
"""Layouts with a feature of their own in models of devices, in addition to :data:`VOCABULARY`."""


def _is_in(layout: str) -> Callable[[Columns, Mapping[str, np.ndarray]], np.ndarray]:
    return lambda _, described: described[f"in_{layout}"]


_OF_DEVICE: dict[str, Callable[[Columns, Mapping[str, np.ndarray]], np.ndarray]] = {
    "device_compute_us": lambda c, d: log_of(c["flops"] / d["gflops"] * 1e-3),
    "device_memory_us": lambda c, d: log_of(c["all_bytes"] / d["memory_gbps"] * 1e-3),
    "device_filled": lambda c, d: log_of(c.results / (d["compute_units"] * RESULTS_PER_UNIT)),
    "device_compute_units": lambda _, d: log_of(d["compute_units"]),
    "device_clock_mhz": lambda _, d: log_of(d["clock_mhz"]),
    "device_gflops": lambda _, d: log_of(d["gflops"]),
    "device_half_gflops": lambda _, d: log_of(d["half_gflops"]),
    "device_memory_gbps": lambda _, d: log_of(d["memory_gbps"]),
    "device_launch_us": lambda _, d: log_of(d["launch_us"]),
    **{f"device_layout_{layout}": _is_in(layout) for layout in DEVICE_LAYOUTS},
}
DEVICE_NAMES = tuple(_OF_DEVICE)
"""Names of the additional features of units on devices; their columns follow :data:`NAMES`."""

MONOTONE = frozenset(
    {
        *("flops", "weight_bytes", "activation_bytes", "compute_us"),
        *("weights_in_l2", "activations_in_l2", "stored_in_l2", "hint_products"),
        *("device_compute_us", "device_memory_us"),
    }
)
"""Features that never make a candidate faster when they grow and all others stay the same."""


def features(asked: PricingQuestion) -> np.ndarray:
    """Compute the features of one candidate.

    Returns
    -------
    numpy.ndarray
        Values of :data:`NAMES`, and of :data:`DEVICE_NAMES` for a unit on a device, float32.
    """
    row: np.ndarray = feature_table([asked])[0][0]
    return row


def feature_table(asked: Sequence[PricingQuestion]) -> tuple[np.ndarray, np.ndarray]:
    """Compute the features of candidates and the natural logarithms of their rooflines.

    Parameters
    ----------
    asked
        Candidates, all on devices or all on the host.

    Returns
    -------
    tuple
        Features, (candidates, features) float32, and logarithms, (candidates,) float32.
    """
    rows = np.zeros((len(asked), len(NAMES)), np.float32)
    hints = [one.hints for one in asked]
    work = _work(asked)
    code = _Code.of(asked, work, hints)
    for name, feature in (*WORK.items(), *MACHINE.items()):
        rows[:, _COLUMN[name]] = feature(work)
    for name, of_code in (*_OF_CODE.items(), *_OF_STORAGE.items()):
        rows[:, _COLUMN[name]] = of_code(code)
    _fill_choices(rows, asked)
    _fill_hints(rows, hints)
    return np.hstack([rows, _device_columns(asked, work)]), margins(asked)


def _work(asked: Sequence[PricingQuestion]) -> Columns:
    """Read the numbers of the sub-graphs, once for all candidates of one sub-graph."""
    numbers: dict[tuple[int, int], int] = {}
    distinct: list[tuple[Workload, MachineProfile]] = []
    which = []
    for one in asked:
        key = id(one.workload), id(one.profile)
        if key not in numbers:
            numbers[key] = len(distinct)
            distinct.append((one.workload, one.profile))
        which.append(numbers[key])
    return Columns.of(distinct).take(which)


def _fill_choices(rows: np.ndarray, asked: Sequence[PricingQuestion]) -> None:
    places = [
        (number, column)
        for number, one in enumerate(asked)
        for column in _chosen(one.workload.operator, one.decision)
    ]
    _assign(rows, places, np.ones(len(places)))


def _fill_hints(rows: np.ndarray, hints: Sequence[Mapping[str, float]]) -> None:
    rows[:, _BLOCKING_COLUMNS] = log_of(np.zeros(1))
    rows[:, _SHARE_COLUMNS] = -1.0
    plain, extents = (
        [
            (number, columns[name], value)
            for number, some in enumerate(hints)
            for name, value in some.items()
            if name in columns
        ]
        for columns in (_PLAIN_HINTS, _EXTENT_HINTS)
    )
    _assign(rows, [place[:2] for place in plain], np.array([value for *_, value in plain]))
    _assign(rows, [place[:2] for place in extents], log_of(np.array([v for *_, v in extents])))


def _assign(rows: np.ndarray, places: Sequence[tuple[int, int]], values: np.ndarray) -> None:
    if places:
        rows[tuple(np.array(places).T)] = values


@lru_cache(maxsize=4096)
def _chosen(operator: str, decision: Decision) -> tuple[int, ...]:
    """List the columns that are 1 for a decision; a name outside :data:`VOCABULARY` has none."""
    choice = {
        "anchor": operator,
        "layout": decision.layout,
        "precision": decision.precision,
        "algorithm": algorithm_of(decision.algorithm).word,
    }
    names = [f"{group}_{name}" for group, name in choice.items() if name in VOCABULARY[group]]
    return tuple(_COLUMN[name] for name in names)


def _device_columns(asked: Sequence[PricingQuestion], work: Columns) -> np.ndarray:
    """Compute the values of :data:`DEVICE_NAMES` by row; without columns for units of the host."""
    devices = [device for one in asked if (device := one.device) is not None]
    if not devices:
        return np.zeros((len(asked), 0), np.float32)
    described = {
        name: np.array([getattr(device, name) for device in devices], np.float64)
        for name in ("compute_units", "clock_mhz", "gflops", "memory_gbps", "launch_us")
    }
    described["half_gflops"] = np.array([device.half_gflops or device.gflops for device in devices])
    for layout in DEVICE_LAYOUTS:
        described[f"in_{layout}"] = np.array([one.decision.layout == layout for one in asked])
    columns = [feature(work, described) for feature in _OF_DEVICE.values()]
    return np.stack(columns, axis=1).astype(np.float32)


def margins(asked: Sequence[PricingQuestion]) -> np.ndarray:
    """Compute the natural logarithm of each candidate's roofline in microseconds, float32."""
    profiles = {id(one.profile): one.profile for one in asked}
    rooflines = {key: RooflineCost.of(profile) for key, profile in profiles.items()}
    times = [rooflines[id(one.profile)].time_us(one.workload, one.decision) for one in asked]
    return np.array([float(np.log(us)) for us in times], dtype=np.float32)
