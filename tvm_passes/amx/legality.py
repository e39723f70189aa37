"""Whether tiles can honour a decision, and what a cost model may want to know of their kernels."""

from __future__ import annotations

from collections.abc import Mapping

from tvm import relax

from tvm_passes.amx.blocking import ALGORITHMS
from tvm_passes.amx.machine import unavailable
from tvm_passes.amx.plan import plan_amx
from tvm_passes.cpu.host import VectorUnit, host_target, vector_unit
from tvm_passes.cpu.plan import Plan
from tvm_passes.cpu.subgraph import is_plain, read_subgraph
from tvm_passes.decision import Decision
from tvm_passes.errors import Decline

LAYOUTS = ("NCHW", "NHWC", "NCHW32c")
"""Channels come last, as in matrices, which have no other layout than the plain one; or in blocks, each a tile's row."""
PRECISIONS = ("bf16", "split-bf16")

_REFERENCE_UNIT = VectorUnit(lanes=16, registers=32, threads=1)
"""Which sub-graphs have kernels does not depend on the number of threads."""


def supports(function: relax.Function, decision: Decision) -> Decline | None:
    """Why a stage-1 sub-graph cannot run on tiles as `decision` says; None if it can."""
    obstacle = _obstacle(function, decision)
    if obstacle is None:
        return None
    operator, got, expected = obstacle
    return Decline(
        subgraph=str(function.attrs["layoutsel.subgraph"]),
        operator=operator,
        decision=str(decision),
        got=got,
        expected=expected,
    )


def _obstacle(function: relax.Function, decision: Decision) -> tuple[str, str, str] | None:
    anchor = str(function.attrs["layoutsel.anchor"])
    reason = unavailable()
    if reason is not None:
        return anchor, reason, "a CPU with AMX"
    for field, known in (
        ("layout", LAYOUTS),
        ("precision", PRECISIONS),
        ("algorithm", tuple(ALGORITHMS)),
    ):
        value = getattr(decision, field)
        if value not in known:
            return anchor, f"{field} {value}", f"one of {', '.join(known)}"
    subgraph = read_subgraph(function, decision)
    if subgraph is None:
        return anchor, "a body with several results", "a single result"
    if decision.layout != "NCHW" and is_plain(subgraph):
        return anchor, f"no {decision.layout} tensor that fits", "layout NCHW"
    plan = plan_amx(subgraph, _REFERENCE_UNIT)
    if isinstance(plan, str):
        return (
            plan,
            "what tiles do not compute in this layout",
            "a convolution in NHWC or a matrix product, with constant weights, ungrouped",
        )
    return None


def hints(function: relax.Function, decision: Decision) -> Mapping[str, float]:
    """What a cost model may want to know of a supported sub-graph's kernel."""
    subgraph = read_subgraph(function, decision)
    plan = plan_amx(subgraph, vector_unit(host_target())) if subgraph else ""
    return plan.hints if isinstance(plan, Plan) else {}
