"""Check of decisions, possibly edited by hand, against the available units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.errors import IllegalDecision

if TYPE_CHECKING:
    from layoutsel.compile.session import Session


def check_legal(session: Session, decisions: Mapping[SubgraphId, Decision]) -> None:
    """Reject decisions that a unit declines or that name no available unit.

    Raises
    ------
    IllegalDecision
        If a decision is illegal; the message states what the first such sub-graph got and expected.
    """
    for id_, decision in decisions.items():
        if decision.precision not in session.precision.offered:
            raise IllegalDecision(
                f"sub-graph {id_} is decided as {decision}: got precision {decision.precision}; "
                f"expected one of {', '.join(session.precision.precisions)}, "
                f"which precision {session.precision.name!r} offers"
            )
        if decision.unit not in session.units:
            raise IllegalDecision(
                f"sub-graph {id_} is decided as {decision}: got unit {decision.unit!r}; "
                f"expected one of {', '.join(session.units)}"
            )
        present = session.devices_of(decision.unit)
        if decision.device not in present:
            raise IllegalDecision(
                f"sub-graph {id_} is decided as {decision}: got device {decision.device}; "
                f"expected one of {', '.join(map(str, present))}, which the machine has"
            )
        backend = session.units[decision.unit].backend
        with session.generating():
            decline = session.functions.decline(id_, decision, backend)
        if decline:
            raise IllegalDecision(str(decline))
