"""Which versions a measurement depends on.

A version's name may start with a scope, such as ``onednn:plugin`` or ``cpu.winograd:code``: it matters to what runs
within that scope alone. A scope is a compute unit, a unit on one of its devices (``cuda@1``), or a family of kernels
within a unit. A name without a scope, such as ``apache-tvm``, matters to everything.
"""

from __future__ import annotations

from collections.abc import Mapping

from layoutsel.core.workload import Workload
from tvm_passes.algorithms import algorithm_of, algorithms_of
from tvm_passes.decision import Decision, parse_placed_unit
from tvm_passes.layout import order_of, storage_of
from tvm_passes.precisions import PRECISIONS

DEPTHWISE = "depthwise"
"""Kernel of a convolution whose filters each see one channel; the other kernels are named by their anchor."""
DEVICE = "device"
"""Under this name, a unit with a memory of its own has the identity of its device among the versions."""

HOSTED: Mapping[str, tuple[str, ...]] = {"amx": ("cpu",)}
"""Units whose kernels are lowered by the code of another one."""

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
"""Families of the CPU's kernels, by :func:`kernel_of`. Generic code alone computes what is not named here."""
_CONVOLUTIONS = frozenset({"nn.conv1d", "nn.conv2d", "nn.conv3d"})
GENERIC = "cpu.generic"
"""Family of the code that TVM generates where no kernel fits; possible in the plain layout."""
TRANSFORM = frozenset({"cpu", "cpu.reorder", GENERIC, "onednn"})
"""Scopes of layout transforms: which of these units makes one depends on the units at hand."""


def every_family() -> frozenset[str]:
    """All families of the CPU's kernels."""
    algorithms = (entry.families("cpu") for entry in algorithms_of("cpu"))
    return frozenset({GENERIC, "cpu.reorder"}).union(*FAMILIES.values(), *algorithms)


def every_unit() -> frozenset[str]:
    """All scopes of our own units."""
    return frozenset({"cpu", "amx", "onednn", "cuda", "opencl"}) | every_family()


def kernel_of(work: Workload) -> str:
    """Name the kernel that computes a sub-graph: its anchor, or :data:`DEPTHWISE`."""
    if work.operator in _CONVOLUTIONS and work.weights:
        groups = work.attributes.get("groups", (1,))[0]
        if groups > 1 and work.weights[0][1] == 1:
            return DEPTHWISE
    return work.operator


def candidate_scopes(kernel: str, decision: Decision) -> frozenset[str]:
    """Scopes of a sub-graph under a decision; `kernel` as of :func:`kernel_of`, empty where it is unknown."""
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
    """Scopes of a ``transform`` between two layouts, or of a ``crossing`` between two placed units."""
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
    """Scope of an entry of a registry; only those of other packages have versions of their own."""
    return f"{concept}.{name}"


def within(versions: Mapping[str, str], scopes: frozenset[str]) -> dict[str, str]:
    """The versions that matter to what runs within `scopes`."""
    return {
        name: text for name, text in versions.items() if not scope(name) or scope(name) in scopes
    }


def scope(name: str) -> str:
    """The scope that the name of a version starts with; empty where it matters to everything."""
    before, colon, _ = name.partition(":")
    return before if colon else ""
