"""Legality of decisions for devices: TVM must legalise the operators and have a schedule."""

from __future__ import annotations

from collections.abc import Iterator

from tvm import relax
from tvm.ir import Call
from tvm.target import Target

from tvm_passes.algorithms import algorithm_of, algorithms_of
from tvm_passes.backends import BACKENDS
from tvm_passes.decided_functions import decide_function
from tvm_passes.decision import Decision
from tvm_passes.errors import Decline
from tvm_passes.generic_forms import unused_layout
from tvm_passes.gpu.target import compute_capability, device_target
from tvm_passes.gpu.tensor_cores import CAPABILITY
from tvm_passes.ir import decline_of, main_bindings, op_name, tensor_types
from tvm_passes.layouts import generic_layouts
from tvm_passes.precisions import PRECISIONS, generic_precisions
from tvm_passes.tunable import tunable
from tvm_passes.tuned import current_database, find_record, record_text
from tvm_passes.units.entry import Abilities


def precisions_of(unit: str) -> tuple[str, ...]:
    """Return the precisions of a unit: its own, then those that only generic code computes in."""
    own = BACKENDS.find(unit).abilities.precisions
    return tuple(dict.fromkeys((*own, *generic_precisions(unit))))


_Obstacle = tuple[str, str, str]
"""Operator that is in the way, got, expected."""


def supports(function: relax.Function, decision: Decision) -> Decline | None:
    """Return the reason why a device cannot run a stage-1 function under `decision`, or None."""
    obstacle = next(_obstacles(function, decision), None)
    return decline_of(function, decision, obstacle) if obstacle else None


def record(function: relax.Function, decision: Decision) -> str:
    """Return the tuning record that provides the code of a stage-1 sub-graph function, as JSON.

    Empty if another source provides the code.
    """
    if not algorithm_of(decision.algorithm).recorded:
        return ""
    task = tunable(decide_function(function, decision))
    return "" if isinstance(task, str) else record_text(task, _target(decision))


def _obstacles(function: relax.Function, decision: Decision) -> Iterator[_Obstacle]:
    """Yield the reasons against `decision`."""
    anchor = str(function.attrs["layoutsel.anchor"])
    abilities = BACKENDS.find(decision.unit).abilities
    for field, known in (
        ("layout", generic_layouts(decision.unit)),
        ("precision", precisions_of(decision.unit)),
        ("algorithm", _algorithms(decision.unit)),
    ):
        if (value := getattr(decision, field)) not in known:
            yield anchor, f"{field} {value}", f"one of {', '.join(known)}"
            return
    storage = PRECISIONS.find(decision.precision).storage
    if storage and storage.dtype not in abilities.dtypes:
        got = f"{storage.dtype} elements of {decision.precision}"
        yield anchor, got, f"one of {', '.join(sorted(abilities.dtypes))}"
    yield from _unknown_operators(function, abilities)
    if reasons := unused_layout(function, decision):
        yield anchor, *reasons
    if decision.precision == "bf16":
        yield from _rounding(function, decision)
    if algorithm_of(decision.algorithm).recorded:
        yield from _untuned(function, decision)


def _target(decision: Decision) -> Target:
    """Return the target of the decision's device."""
    return device_target(decision.unit, index=decision.index)


def _algorithms(unit: str) -> list[str]:
    """Return the algorithms whose code TVM's rules or tuning records provide.

    No kernels are planned for devices.
    """
    return [one.name for one in algorithms_of(unit) if one.is_default or one.recorded]


def _unknown_operators(function: relax.Function, abilities: Abilities) -> Iterator[_Obstacle]:
    """Yield the operators that a device computes wrongly or whose element types it lacks."""
    for binding in main_bindings(function):
        operator = op_name(binding.value)
        if operator in abilities.declined:
            yield operator, "an operator whose kernel runs in lock step", "another unit"
        values = [binding.var, *(binding.value.args if isinstance(binding.value, Call) else ())]
        for dtype in (str(ty.dtype) for value in values for ty in tensor_types(value.ty)):
            if dtype not in abilities.dtypes:
                yield operator, dtype, f"one of {', '.join(sorted(abilities.dtypes))}"


def _rounding(function: relax.Function, decision: Decision) -> Iterator[_Obstacle]:
    """Yield the reasons against bf16."""
    anchor = str(function.attrs["layoutsel.anchor"])
    capability = compute_capability(_target(decision))
    if capability < CAPABILITY:
        found, needed = capability / 10, CAPABILITY / 10
        yield anchor, f"bf16 at compute capability {found}", f"{needed} or more"
    if not isinstance(function.ret_ty, relax.TensorType):
        yield anchor, "bf16 for a body with several results", "precision f32"


def _untuned(function: relax.Function, decision: Decision) -> Iterator[_Obstacle]:
    """Yield the reason why no tuning record is available."""
    anchor = str(function.attrs["layoutsel.anchor"])
    if current_database() is None:
        yield anchor, "no tuning database", "a tuning record for it"
        return
    task = tunable(decide_function(function, decision))
    if isinstance(task, str):
        yield anchor, task, "a tuning record for it"
    elif find_record(task, _target(decision)) is None:
        yield anchor, "none in the database at hand", "a tuning record for it"
