"""Resources of the steps of a request: processors of nodes, links, and shared media."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from layoutsel.cluster.links import MessageRoutes
from layoutsel.planning.resources import Resources


@dataclass(frozen=True)
class MessageParts:
    """A message, and what its price contains in addition."""

    bytes: float
    """Size of the message."""
    transform_us: float
    """Time of the transform by the receiver, microseconds."""
    engine_us: float = 0.0
    """Time of the engine until a segment reads the tensor, microseconds."""


@dataclass(frozen=True)
class ClusterResources:
    """Nodes that compute by themselves, and messages between them.

    A sub-graph occupies the processor of its node. A message occupies the sender's processor, then
    all links on its way, then the receiver's processor. Tensors travel in the sender's layout, so
    the receiver transforms them: either the price of a message contains that, or it is a boundary
    of its own. Nothing is called by a host: each step starts by itself.
    """

    routes: MessageRoutes
    """Routes between the nodes."""
    receivers_transform: ClassVar[bool] = True
    """True: tensors travel in the sender's layout."""
    parts: Mapping[tuple[str, str, float], MessageParts] = field(
        default_factory=dict, compare=False
    )
    """Parts of prices that are more than those of messages, by memories and price."""

    def compute(self, unit: str, memory: str, us: float) -> Resources:
        """Occupy the processor of a node."""
        del unit  # all units of a node share its processor
        return Resources(busy_us={memory: us})

    def boundary(self, kind: str, source: str, destination: str, us: float) -> Sequence[Resources]:
        """Divide the price of a message over its route; other boundaries occupy the receiver."""
        if us == 0:
            return []
        if kind != "copy" or source == destination:
            return [Resources(busy_us={destination: us})]
        route = self.routes.route(self._nodes[source], self._nodes[destination])
        known = self.parts.get((source, destination, us))
        if known is None:
            return route.resources(route.size(us))
        waiting = Resources(busy_us={}, delay_us=known.engine_us)
        transforming = Resources(busy_us={destination: known.transform_us})
        more = (one for one in (waiting, transforming) if one.duration_us)
        return (*route.resources(known.bytes), *more)

    @cached_property
    def _nodes(self) -> dict[str, str]:
        """Node by the name of its memory."""
        return {self.routes.processor(node.id): node.id for node in self.routes.topology.computing}
