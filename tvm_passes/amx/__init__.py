"""The compute unit ``amx``: products of bfloat16 tiles with f32 sums and fused epilogues.

TVM generates the code. Importing this package does not load TVM; its functions do, except
:func:`unavailable`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm_passes.amx.machine import not_x86, unavailable, unfit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tvm_passes.decision import Decision
    from tvm_passes.errors import Decline

__all__ = ["hints", "not_x86", "plan_amx", "supports", "unavailable", "unfit"]


def supports(function: Any, decision: Decision) -> Decline | None:
    """Return the reason why `decision` is impossible for a stage-1 sub-graph function, or None."""
    from tvm_passes.amx.legality import supports as check

    return check(function, decision)


def hints(function: Any, decision: Decision) -> Mapping[str, float]:
    """Return the features of a supported sub-graph's kernel for cost models."""
    from tvm_passes.amx.legality import hints as ask

    return ask(function, decision)


def plan_amx(subgraph: Any, unit: Any) -> Any:
    """Return the plan of a sub-graph's kernel, or the obstacle: see :mod:`tvm_passes.amx.plan`."""
    from tvm_passes.amx import plan

    return plan.plan_amx(subgraph, unit)
