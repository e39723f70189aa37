"""Checks of the layouts and precisions that generic code supports.

A stage-2 sub-graph function has a plain float32 body between transforms from and to the decided
layouts and storages. Generic code is TVM's legalisation of this function; it is therefore correct
in any layout and storage.
"""

from __future__ import annotations

from tvm import relax

from tvm_passes.decision import Decision
from tvm_passes.ir import static_shape, tensor_types
from tvm_passes.layout import PLAIN, order_of, storage_of
from tvm_passes.layouts import LAYOUTS, generic_layouts
from tvm_passes.ports import activation_types, port_layouts
from tvm_passes.precisions import PRECISIONS, generic_precisions


def generic_obstacle(function: relax.Function, decision: Decision) -> tuple[str, str] | None:
    """Return why generic code cannot compute a stage-1 sub-graph as decided; None if it can.

    The reason is a pair: the unsupported property, and the expected one (see ``Decline``).
    """
    known = {
        "layout": generic_layouts(decision.unit),
        "precision": generic_precisions(decision.unit),
        "algorithm": ("direct",),
    }
    for field, names in known.items():
        if (value := getattr(decision, field)) not in names:
            return f"{field} {value} of generic code", f"one of {', '.join(names)}"
    return unused_layout(function, decision) or _unused_storage(function, decision)


def unused_layout(function: relax.Function, decision: Decision) -> tuple[str, str] | None:
    """Return why the decided layout is useless: no tensor of the sub-graph can have it; else None.

    The reason is a pair: the unsupported property, and the expected one.
    """
    names = [name for ports in port_layouts(function, decision) for name in ports]
    if decision.layout in (PLAIN, *map(order_of, names)):
        return None
    types = [*activation_types(function), *tensor_types(function.ret_ty)]
    shapes = sorted((static_shape(ty) for ty in types), key=lambda shape: len(shape) != 4)
    reasons = filter(None, map(LAYOUTS.find(decision.layout).obstacle, shapes))
    why = next((f" ({reason})" for reason in reasons), "")
    return f"no tensor that has a {decision.layout} form{why}", f"layout {PLAIN}"


def _unused_storage(function: relax.Function, decision: Decision) -> tuple[str, str] | None:
    """Return got and expected if no tensor takes the storage of the precision, or None."""
    storage = PRECISIONS.find(decision.precision).storage
    if storage is None:
        return None
    # TVM replaces a bfloat16 that is widened again by the float32 that it was rounded from.
    if storage.parts > 1 and storage.dtype == "bfloat16":
        got = f"the storage {storage.name}, of which generic code keeps the first part only"
        return got, "one part, or parts of another type than bfloat16"
    names = [name for ports in port_layouts(function, decision) for name in ports]
    if storage.name not in map(storage_of, names):
        return (
            f"no float32 tensor, which {decision.precision} would store otherwise",
            "precision f32",
        )
    return None
