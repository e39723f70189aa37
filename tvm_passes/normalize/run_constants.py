"""Evaluation of any operator of constants by TVM's own code, within a limit of work."""

from __future__ import annotations

import logging

import numpy as np
import tvm
from tvm import relax, tirx
from tvm.ir import Call, Op

from tvm_passes.ir import op_name

_LOGGER = logging.getLogger(__name__)

MOST_STEPS = 1 << 26
"""Maximum number of innermost iterations of unscheduled code per result: less than a second."""

_PARTS = ("block", "body", "then_case", "else_case")
"""Fields of statements that contain other statements."""

_KEPT = frozenset({"dequantize", "quantize"})
"""Operators that mark quantised integers: folding them would lose the integers."""


def run(call: Call) -> list[np.ndarray] | None:
    """Run `call` on its constant arguments.

    None if it is impure, unknown to TVM, or needs too many steps.
    """
    if not _is_runnable(call):
        return None
    builder = relax.BlockBuilder()
    with builder.function("main", []):
        with builder.dataflow():
            result = builder.emit_output(call)
        builder.emit_func_output(result)
    module = builder.finalize()
    try:
        if _steps(relax.transform.LegalizeOps()(module)) > MOST_STEPS:
            return None
        machine = relax.VirtualMachine(tvm.compile(module, "llvm"), tvm.cpu())
        value = machine["main"]()
    except (RuntimeError, ValueError, TypeError) as error:
        _LOGGER.info("%s of constants stays: %s", op_name(call), str(error).splitlines()[-1:])
        return None
    values = [value] if isinstance(value, tvm.runtime.Tensor) else list(value)
    return [item.numpy() for item in values]


def _is_runnable(call: Call) -> bool:
    """Return whether `call` is a pure operator on tensors.

    Calls of functions and of the virtual machine are not.
    """
    if not isinstance(call.op, Op) or op_name(call) in _KEPT:
        return False
    is_pure = call.op.get_attr("FPurity")
    return bool(is_pure) and not op_name(call).startswith(("call_", "vm.", "memory.", "inspect."))


def _steps(module: tvm.IRModule) -> int:
    """Count the iterations of all loop nests of a module."""
    bodies = [f.body for f in module.functions.values() if isinstance(f, tirx.PrimFunc)]
    return sum(_nested_steps(body) for body in bodies)


def _nested_steps(statement: tirx.Stmt) -> int:
    """Count the iterations of one statement; a loop of unknown length counts as too many."""
    if isinstance(statement, tirx.While):
        return MOST_STEPS + 1
    inner = sum(_nested_steps(child) for child in _children(statement))
    if not isinstance(statement, tirx.For):
        return max(inner, 1)
    is_known = isinstance(statement.extent, (int, tirx.IntImm))
    return inner * int(statement.extent) if is_known else MOST_STEPS + 1


def _children(statement: tirx.Stmt) -> list[tirx.Stmt]:
    """Return the statements that a statement contains."""
    if isinstance(statement, tirx.SeqStmt):
        return list(statement.seq)
    found = [getattr(statement, name, None) for name in _PARTS]
    return [part for part in found if isinstance(part, tirx.Stmt)]
