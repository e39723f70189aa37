"""Conversion of plan files of older schema versions to the present one.

A damaged document stays damaged; the reader then names its first wrong field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from layoutsel.documents import is_number
from layoutsel.planning.values import MAKESPAN, SUM, WITHIN_ERROR, Value


def _from_3(document: Mapping[str, Any]) -> dict[str, Any]:
    """Add the objective, and values and bounds per objective; version 3 had a field for each.

    The bound of version 3 for an error budget holds for a smaller error than the budget, so that
    value is omitted.
    """
    makespan = document.get("makespan")
    timed = makespan if isinstance(makespan, dict) else None
    found: dict[str, tuple[Any, Any]] = {SUM: (document.get("cost_us"), document.get("bound_us"))}
    if timed is not None:
        found[MAKESPAN] = (timed.get("us"), timed.get("bound_us"))
    made = {
        **document,
        "schema_version": 4,
        "objective": _objective_of_3(document),
        "values": {
            name: {"unit": "us", "value": value, "bound": bound}
            for name, (value, bound) in found.items()
        },
        "order": timed.get("order") if timed is not None else [],
    }
    cost, bound = found[SUM]
    if "gap" in made and is_number(cost) and is_number(bound):
        # Version 3 added the same costs in another order, so its gap has other rounding errors.
        made["gap"] = Value(unit="us", value=cost, bound=bound).gap
    return made


def _objective_of_3(document: Mapping[str, Any]) -> str:
    if document.get("makespan") is not None:
        return MAKESPAN
    return SUM if document.get("max_rel_error") is None else WITHIN_ERROR


def renewal_of(ids: Iterable[str]) -> str:
    """Write advice for a plan of the right model with unknown ids."""
    numbered = next((id_ for id_ in ids if re.fullmatch(r"s\d+", id_)), None)
    reason = (
        f" It numbers sub-graphs, such as {numbered}, as earlier versions did." if numbered else ""
    )
    return f"{reason} Plan again with 'layoutsel plan'"


UPGRADES: Mapping[int, Callable[[Mapping[str, Any]], dict[str, Any]]] = {3: _from_3}
"""Conversion to the present version, by schema version."""
