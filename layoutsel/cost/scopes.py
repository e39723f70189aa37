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
from tvm_passes.decision import Decision, parse_placed_unit
from tvm_passes.layout import order_of, storage_of
from tvm_passes.precisions import PRECISIONS

DEPTHWISE = "depthwise"
"""Kernel of convolutions whose filters see one channel each; others are named by their anchor."""
DEVICE = "device"
"""Name of the version that identifies the device of a unit with its own memory."""

HOSTED: Mapping[str, tuple[str, ...]] = {"amx": ("cpu",)}
"""Units whose kernels are lowered by the code of other units, by name."""

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "concat": ("cpu.pointwise",),
    DEPTHWISE: ("cpu.convolution", "cpu.window"),
    "elementwise": ("cpu.pointwise",),
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
TRANSFORM = frozenset({"cpu", "cpu.reorder", GENERIC, "onednn"})
"""Scopes of layout transforms; the available units determine which of them makes one."""


def every_family() -> frozenset[str]:
    """List all families of the CPU's kernels."""
    algorithms = (entry.families("cpu") for entry in algorithms_of("cpu"))
    return frozenset({GENERIC, "cpu.reorder"}).union(*FAMILIES.values(), *algorithms)


def every_unit() -> frozenset[str]:
    """List all scopes of the built-in units."""
    return frozenset({"cpu", "amx", "onednn", "cuda", "opencl"}) | every_family()


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
        *(decision.unit, decision.placed_unit, *HOSTED.get(decision.unit, ())),
        entry_scope("layout", decision.layout),
        entry_scope("precision", decision.precision),
    }
    families = algorithm_of(decision.algorithm).families(decision.unit)
    if families or decision.unit != "cpu":
        return frozenset(common).union(families)
    if not kernel:
        return frozenset(common) | every_family()
    return frozenset({*common, *FAMILIES.get(kernel, ()), GENERIC})


def boundary_scopes(kind: str, source: str, destination: str) -> frozenset[str]:
    """List the scopes of a ``transform`` between layouts or a ``crossing`` between placed units."""
    ends = source, destination
    if kind != "transform":
        return frozenset({*ends, *(parse_placed_unit(end)[0] for end in ends)})
    storages = set(map(storage_of, ends)) - {""}
    return TRANSFORM | {
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
