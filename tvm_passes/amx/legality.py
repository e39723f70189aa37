"""Whether tiles can honour a decision, and what a cost model may want to know of their kernels."""

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
"""Channels come last, as in matrices, which have no other layout than the plain one; or in blocks, each a tile's row."""
PRECISIONS = ("bf16", "split-bf16")


def supports(function: relax.Function, decision: Decision) -> Decline | None:
    """Why a stage-1 sub-graph cannot run on tiles as `decision` says; None if it can."""
    obstacle = _obstacle(function, decision)
    return decline_of(function, decision, obstacle) if obstacle else None


def _obstacle(function: relax.Function, decision: Decision) -> tuple[str, str, str] | None:
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
    """What a cost model may want to know of a supported sub-graph's kernel."""
    subgraph = read_subgraph(function, decision)
    plan = plan_amx(subgraph, vector_unit(host_target())) if subgraph else ""
    return plan.hints if isinstance(plan, KernelPlan) else {}
