"""Slack: a plan of a whole network, against the sum of the prices of its parts.

Parts are priced one by one with free layouts. A plan of the whole network may fuse a sum into the
convolution before it, and must convert layouts between parts; both are small, and neither is known
before the architecture is.
"""

from __future__ import annotations

from dataclasses import dataclass

from layoutsel.cluster.classes import MachineClass, plan_class
from layoutsel.compile.options import Options
from layoutsel.search.networks import write_network
from layoutsel.search.parts import PartGraph
from layoutsel.search.prices import PriceTable


@dataclass(frozen=True, kw_only=True)
class Slack:
    """Times of one network on one node."""

    parts_us: float
    """Sum of the prices of its parts, microseconds."""
    plan_us: float
    """Time of the plan of the whole network, microseconds."""

    @property
    def gain(self) -> float:
        """Share of the sum that the plan saves; negative if it takes longer."""
        return 1 - self.plan_us / self.parts_us


def slack_of(
    parts: PartGraph, table: PriceTable, machine_class: MachineClass, options: Options | None = None
) -> Slack:
    """Plan a network on one node of a class, and compare with the prices of its parts.

    Raises
    ------
    LayoutselError
        If a part has no price, or the network cannot be planned.
    """
    name = machine_class.name
    planned = plan_class(write_network(parts), machine_class, options or Options())
    return Slack(
        parts_us=sum(table.us(part.signature, name) for part in parts.parts),
        plan_us=planned.plan.cost_us,
    )
