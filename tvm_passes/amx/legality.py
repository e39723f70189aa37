"""Legality of decisions for tiles, and features of their kernels for cost models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tvm import relax

from tvm_passes.algorithms import algorithms_of
from tvm_passes.amx.machine import absent
from tvm_passes.amx.plan import plan_amx
from tvm_passes.cpu.host import host_target, vector_unit
from tvm_passes.cpu.plan import KernelPlan
from tvm_passes.cpu.subgraph import KernelSubgraph, is_plain, read_subgraph
from tvm_passes.decision import DIRECT, Decision
from tvm_passes.errors import Decline
from tvm_passes.ir import decline_of
from tvm_passes.layout import PLAIN

LAYOUTS = ("NCHW", "NHWC", "NCHW32c")
"""Supported layouts: NCHW for matrices only, the others for images.

Channels are then last, or in blocks of 32, each of which fills one row of a tile.
"""
PRECISIONS = ("bf16", "split-bf16")
"""Supported precisions."""


def supports(function: relax.Function, decision: Decision) -> Decline | None:
    """Return the reason why a stage-1 sub-graph cannot run on tiles under `decision`, or None."""
    obstacle = _obstacle(function, decision)
    return decline_of(function, decision, obstacle) if obstacle else None


def _obstacle(function: relax.Function, decision: Decision) -> tuple[str, str, str] | None:
    """Return the operator in the way, what was got and what was expected, or None."""
    anchor = str(function.attrs["layoutsel.anchor"])
    reason = absent()
    if reason is not None:
        return anchor, reason, "a CPU with AMX"
    for field, known in (
        ("layout", LAYOUTS),
        ("precision", PRECISIONS),
        ("algorithm", tuple(entry.name for entry in algorithms_of("amx"))),
    ):
        value = getattr(decision, field)
        if value not in known:
            return anchor, f"{field} {value}", f"one of {', '.join(known)}"
    subgraph = read_subgraph(function, decision)
    if subgraph is None:
        return anchor, "a body with several results", "a single result"
    if decision.layout != PLAIN and is_plain(subgraph):
        return anchor, f"no {decision.layout} tensor that fits", f"layout {PLAIN}"
    return _unplanned(subgraph, decision)


def _unplanned(subgraph: KernelSubgraph, decision: Decision) -> tuple[str, str, str] | None:
    """Return the reason why no kernel is planned, or why it equals that of the direct algorithm."""
    unit = vector_unit(host_target())
    plan = plan_amx(subgraph, unit)
    if isinstance(plan, str):
        got = f"what tiles do not compute in {decision.layout}"
        return (
            plan,
            got,
            "a convolution in one group, channels last, or a matrix product, of constant weights",
        )
    simplest = plan_amx(replace(subgraph, algorithm=DIRECT), unit)
    assert isinstance(simplest, KernelPlan)
    if decision.algorithm != DIRECT and plan.hints == simplest.hints:
        return subgraph.anchor, f"algorithm {decision.algorithm}, which is the same here", DIRECT
    return None


def hints(function: relax.Function, decision: Decision) -> Mapping[str, float]:
    """Return the features of a supported sub-graph's kernel for cost models."""
    subgraph = read_subgraph(function, decision)
    plan = plan_amx(subgraph, vector_unit(host_target())) if subgraph else ""
    return plan.hints if isinstance(plan, KernelPlan) else {}
