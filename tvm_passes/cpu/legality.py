"""Legality of decisions for the CPU, and properties of the code that would run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import tvm_ffi
from tvm import relax

from tvm_passes.algorithms import algorithm_of, algorithms_of
from tvm_passes.cpu.host import VectorUnit, has_bf16, host_target, vector_unit
from tvm_passes.cpu.kernels import PLANNERS, plan_subgraph
from tvm_passes.cpu.plan import KernelPlan
from tvm_passes.cpu.subgraph import is_plain, read_subgraph
from tvm_passes.cpu.view import ORDERS
from tvm_passes.decided_functions import decide_function
from tvm_passes.decision import DIRECT, Decision
from tvm_passes.errors import Decline
from tvm_passes.generic_forms import generic_obstacle
from tvm_passes.layout import PLAIN
from tvm_passes.layouts import generic_layouts
from tvm_passes.precisions import generic_precisions
from tvm_passes.tunable import Tunable, tunable
from tvm_passes.tuned import current_database, find_record, record_text

CPU_LAYOUTS = tuple(order for order in ORDERS if order != "NCHW4c")
"""Layouts of kernels; a block of four would leave most of a vector register empty."""
BFLOAT16 = ("bf16", "split-bf16")
"""Precisions of kernels that convert to bfloat16."""
PRECISIONS = ("f32", *BFLOAT16)
"""Precisions of kernels."""

_REFERENCE_UNIT = VectorUnit(lanes=16, registers=32, threads=1)
"""A vector unit for questions of legality: they do not depend on the vector unit."""
_CAPACITY = 1024
"""Number of tasks that are kept."""


class _Tasks:
    """The latest sub-graphs in their layouts as tuning tasks; each is requested several times."""

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[int, str, str], tuple[relax.Function, Tunable | str]] = (
            OrderedDict()
        )

    def get(self, function: relax.Function, decision: Decision) -> Tunable | str:
        """Return the task of a stage-1 sub-graph, or the reason why there is none."""
        anonymous = function.without_attr("layoutsel.subgraph")
        key = (tvm_ffi.structural_hash(anonymous), decision.layout, decision.precision)
        known, task = self._entries.get(key, (None, ""))
        if known is None or not tvm_ffi.structural_equal(known, anonymous):
            task = tunable(decide_function(function, decision))
            self._entries[key] = anonymous, task
            if len(self._entries) > _CAPACITY:
                self._entries.popitem(last=False)
        return task


_tasks = _Tasks()
"""Tuning tasks of this process."""


def supports(function: relax.Function, decision: Decision) -> Decline | None:
    """Return the reason why a stage-1 sub-graph cannot run under `decision`, or None.

    Every sub-graph can run in the plain layout and in those of generic code. In the other layouts,
    it needs a kernel.
    """
    attrs = function.attrs

    def decline(operator: str, got: str, expected: str) -> Decline:
        return Decline(
            subgraph=str(attrs["layoutsel.subgraph"]),
            operator=operator,
            decision=str(decision),
            got=got,
            expected=expected,
        )

    anchor = str(attrs["layoutsel.anchor"])
    if unknown := _unknown(decision):
        return decline(anchor, *unknown)
    if (decision.layout, decision.algorithm, decision.precision) == (PLAIN, DIRECT, "f32"):
        return None
    if algorithm_of(decision.algorithm).recorded:
        reason = _untuned(function, decision)
        return decline(anchor, reason, "a tuning record for it") if reason else None
    if not _is_of_kernels(decision):
        reasons = generic_obstacle(function, decision)
        return decline(anchor, *reasons) if reasons else None
    if obstacle := _obstacle(function, decision):
        return decline(*obstacle, "layout NCHW, algorithm direct, precision f32")
    return None


def generic(function: relax.Function, decision: Decision) -> Decline | None:
    """Return the reason why a supported decision gets TVM's own code, not a kernel, or None."""
    if algorithm_of(decision.algorithm).recorded:
        return None
    subgraph = read_subgraph(function, decision)
    plan = plan_subgraph(subgraph, _REFERENCE_UNIT) if subgraph else ""
    if isinstance(plan, KernelPlan):
        return None
    anchor = str(function.attrs["layoutsel.anchor"])
    got = "shapes, types or attributes beyond its kernel" if anchor in PLANNERS else "no kernel"
    if not _is_of_kernels(decision):
        got = "a layout or precision without kernels"
    elif subgraph is None:
        got = "several results, or integers that stand for numbers"
    return Decline(
        subgraph=str(function.attrs["layoutsel.subgraph"]),
        operator=plan if isinstance(plan, str) and plan else anchor,
        decision=f"{decision} by a kernel",
        got=f"{got}: generic code runs it",
        expected="an operator, shapes and types that a kernel takes",
    )


def _obstacle(function: relax.Function, decision: Decision) -> tuple[str, str] | None:
    """Return the operator that prevents a kernel for a decision, and the reason, or None."""
    subgraph = read_subgraph(function, decision)
    if subgraph is None:
        return str(function.attrs["layoutsel.anchor"]), "a body with several results, or quantised"
    lacking = "kernel"
    plan: KernelPlan | str = subgraph.anchor
    if decision.layout != PLAIN and decision.algorithm == DIRECT and is_plain(subgraph):
        lacking = "tensor that fits"
    else:
        plan = plan_subgraph(subgraph, _REFERENCE_UNIT)
    how = f"{decision.algorithm}, {decision.precision}"
    reason = f"no {decision.layout} {lacking} ({how}) for these shapes"
    return (plan, reason) if isinstance(plan, str) else None


def _unknown(decision: Decision) -> tuple[str, str] | None:
    """Return the part of a decision that this CPU never supports, and what it supports, or None."""
    for field, known in (
        ("layout", dict.fromkeys((*CPU_LAYOUTS, *generic_layouts("cpu")))),
        ("precision", dict.fromkeys((*PRECISIONS, *generic_precisions("cpu")))),
        ("algorithm", tuple(entry.name for entry in algorithms_of("cpu"))),
    ):
        value = getattr(decision, field)
        if value not in known:
            return f"{field} {value}", f"one of {', '.join(known)}"
    if decision.precision in BFLOAT16 and not has_bf16(host_target()):
        return "a CPU without AVX512_BF16", "one that converts to bfloat16"
    return None


def _is_of_kernels(decision: Decision) -> bool:
    """Return whether any kernel computes in the layout and the precision of a decision."""
    return decision.layout in CPU_LAYOUTS and decision.precision in PRECISIONS


def _untuned(function: relax.Function, decision: Decision) -> str | None:
    """Return the reason why a stage-1 sub-graph has no tuned code, or None."""
    if current_database() is None:
        return "no tuning database"
    task = _tasks.get(function, decision)
    if isinstance(task, str):
        return task
    return None if find_record(task, host_target()) else "none in the database at hand"


def record(function: relax.Function, decision: Decision) -> str:
    """Return the tuning record that provides the code of a stage-1 sub-graph, as JSON.

    Empty if another source provides the code.
    """
    if not algorithm_of(decision.algorithm).recorded:
        return ""
    task = _tasks.get(function, decision)
    return "" if isinstance(task, str) else record_text(task, host_target())


def hints(function: relax.Function, decision: Decision) -> Mapping[str, float]:
    """Return the features of a stage-1 sub-graph's kernel for cost models.

    See :attr:`KernelPlan.hints`.
    """
    if algorithm_of(decision.algorithm).recorded:
        return {"kernel_tuned": 1.0}
    subgraph = read_subgraph(function, decision)
    plan = plan_subgraph(subgraph, vector_unit(host_target())) if subgraph else ""
    return plan.hints if isinstance(plan, KernelPlan) else {"kernel_fallback": 1.0}
