"""Scopes of versions: the versions that a measurement depends on.

The name of a version may start with a scope, such as ``onednn:plugin`` or ``cpu.winograd:code``:
only code within that scope depends on it. A scope is a compute unit, a unit on one of its devices
(``cuda@1``), or a family of kernels within a unit. A name without a scope, such as ``apache-tvm``,
affects everything.
"""

from __future__ import annotations

from collections.abc import Mapping

from layoutsel.core.workload import Workload
from tvm_passes.algorithms import algorithm_of, algorithms_of
from tvm_passes.backends import BACKENDS, known_backend, own_backends
from tvm_passes.decision import Decision, parse_placed_unit
from tvm_passes.layout import order_of, storage_of
from tvm_passes.precisions import PRECISIONS
from tvm_passes.units.entry import HOST_UNIT

DEPTHWISE = "depthwise"
"""Name of the kernel of depthwise convolutions; other kernels are named after their anchor."""
DEVICE = "device"
"""Name of the version that identifies the device of a unit with its own memory."""

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "concat": ("cpu.pointwise",),
    DEPTHWISE: ("cpu.convolution", "cpu.window"),
    "elementwise": ("cpu.pointwise",),
    "attention": ("cpu.attention",),
    "lrn": ("cpu.lrn",),
    "matmul": ("cpu.convolution", "cpu.products"),
    "mean": ("cpu.window",),
    "nn.adaptive_avg_pool2d": ("cpu.window",),
    "nn.avg_pool2d": ("cpu.window",),
    "nn.conv1d": ("cpu.convolution",),
    "nn.conv1d_transpose": ("cpu.transposed",),
    "nn.conv2d": ("cpu.convolution",),
    "nn.conv2d_transpose": ("cpu.transposed",),
    "nn.conv3d": ("cpu.convolution",),
    "nn.layer_norm": ("cpu.rows",),
    "nn.max_pool2d": ("cpu.window",),
    "nn.softmax": ("cpu.rows",),
}
"""Families of the CPU's kernels, by :func:`kernel_of`; other kernels use only generic code."""
_CONVOLUTIONS = frozenset({"nn.conv1d", "nn.conv2d", "nn.conv3d"})
GENERIC = "cpu.generic"
"""Family of the code that TVM generates without a special kernel; possible in the plain layout."""


def transform_scopes() -> frozenset[str]:
    """List all scopes that layout transforms may depend on, whichever unit makes them."""
    partitions = {backend.name for backend in BACKENDS.values() if backend.orders}
    return frozenset({HOST_UNIT, "cpu.reorder", GENERIC}) | partitions


def every_family() -> frozenset[str]:
    """List all families of the CPU's kernels."""
    algorithms = (entry.families(HOST_UNIT) for entry in algorithms_of(HOST_UNIT))
    return frozenset({GENERIC, "cpu.reorder"}).union(*FAMILIES.values(), *algorithms)


def every_unit() -> frozenset[str]:
    """List all scopes of the built-in units."""
    return frozenset(own_backends()) | every_family()


def kernel_of(work: Workload) -> str:
    """Return the name of a sub-graph's kernel: its anchor, or :data:`DEPTHWISE`."""
    if work.operator in _CONVOLUTIONS and work.weights:
        groups = work.attributes.get("groups", (1,))[0]
        if groups > 1 and work.weights[0][1] == 1:
            return DEPTHWISE
    return work.operator


def candidate_scopes(kernel: str, decision: Decision) -> frozenset[str]:
    """List the scopes of a sub-graph under a decision.

    Parameters
    ----------
    kernel
        Name of the kernel by :func:`kernel_of`; empty if it is unknown.
    decision
        Decision of the sub-graph.
    """
    common = {
        *(decision.unit, decision.placed_unit, _lowering_unit(decision.unit)),
        entry_scope("layout", decision.layout),
        entry_scope("precision", decision.precision),
    }
    families = algorithm_of(decision.algorithm).families(decision.unit)
    if families or decision.unit != HOST_UNIT:
        return frozenset(common).union(families)
    if not kernel:
        return frozenset(common) | every_family()
    return frozenset({*common, *FAMILIES.get(kernel, ()), GENERIC})


def _lowering_unit(unit: str) -> str:
    """Unit whose code lowers a unit's kernels."""
    backend = known_backend(unit)
    return unit if backend is None or backend.lower is not None else HOST_UNIT


def boundary_scopes(kind: str, source: str, destination: str) -> frozenset[str]:
    """List the scopes of a ``transform`` between layouts or a ``crossing`` between placed units."""
    ends = source, destination
    if kind != "transform":
        return frozenset({*ends, *(parse_placed_unit(end)[0] for end in ends)})
    storages = set(map(storage_of, ends)) - {""}
    return transform_scopes() | {
        *(entry_scope("layout", order_of(layout)) for layout in ends),
        *(
            entry_scope("precision", entry.name)
            for entry in PRECISIONS.values()
            if entry.storage_name in storages
        ),
    }


def entry_scope(concept: str, name: str) -> str:
    """Name the scope of a registry's entry; only entries of other packages have their own versions.

    Parameters
    ----------
    concept
        Registry, such as ``layout`` or ``precision``.
    name
        Name of the entry.
    """
    return f"{concept}.{name}"


def within(versions: Mapping[str, str], scopes: frozenset[str]) -> dict[str, str]:
    """Select the versions that code within `scopes` depends on."""
    return {
        name: text for name, text in versions.items() if not scope(name) or scope(name) in scopes
    }


def scope(name: str) -> str:
    """Return the scope in a version's name; empty if the version affects everything."""
    before, colon, _ = name.partition(":")
    return before if colon else ""
