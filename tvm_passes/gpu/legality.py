"""What devices can run: what TVM legalises and has a schedule for."""

from __future__ import annotations

from tvm import relax
from tvm.ir import Call

from tvm_passes.decision import Decision
from tvm_passes.errors import Decline
from tvm_passes.ir import decline_of, main_bindings, op_name, tensor_types
from tvm_passes.layout import PLAIN

LOCK_STEP = frozenset({"cumsum", "cumprod", "sort", "argsort", "topk"})
"""Their kernels count on work-items that run in lock step, which CPUs' drivers do not have."""
DTYPES = frozenset({"float32", "int8", "uint8", "int32", "int64", "bool"})
"""Element types that every device has."""

_KNOWN = {"layout": (PLAIN,), "precision": ("f32",), "algorithm": ("direct",)}


def supports(function: relax.Function, decision: Decision) -> Decline | None:
    """Why a stage-1 sub-graph function cannot run on a device as `decision` says; None if it can."""
    obstacle = _obstacle(function, decision)
    return decline_of(function, decision, obstacle) if obstacle else None


def _obstacle(function: relax.Function, decision: Decision) -> tuple[str, str, str] | None:
    anchor = str(function.attrs["layoutsel.anchor"])
    for field, known in _KNOWN.items():
        if (value := getattr(decision, field)) not in known:
            return anchor, f"{field} {value}", f"one of {', '.join(known)}"
    for binding in main_bindings(function):
        operator = op_name(binding.value)
        if operator in LOCK_STEP:
            return operator, "an operator whose kernel runs in lock step", "another unit"
        values = [binding.var, *(binding.value.args if isinstance(binding.value, Call) else ())]
        for dtype in (str(ty.dtype) for value in values for ty in tensor_types(value.ty)):
            if dtype not in DTYPES:
                return operator, dtype, f"one of {', '.join(sorted(DTYPES))}"
    return None
