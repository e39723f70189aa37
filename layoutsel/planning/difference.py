"""What two plans decide differently."""

from __future__ import annotations

from dataclasses import dataclass

from layoutsel.planning.plan import Plan
from tvm_passes.decision import Decision, SubgraphId


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One sub-graph that two plans decide differently."""

    id: SubgraphId
    before: Decision | None
    after: Decision | None
    """None where the plan lacks the sub-graph."""

    def __str__(self) -> str:
        return f"{self.id}: {self.before or 'absent'} -> {self.after or 'absent'}"


def diff(before: Plan, after: Plan) -> tuple[Difference, ...]:
    """List what the two plans decide differently, in the order of `before`, new sub-graphs last."""
    first, second = before.decisions, after.decisions
    return tuple(
        Difference(id=id_, before=first.get(id_), after=second.get(id_))
        for id_ in dict.fromkeys([*first, *second])
        if first.get(id_) != second.get(id_)
    )
