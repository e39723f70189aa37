"""Prices of networks on two devices: of all parts of a space, and of a network's slices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from layoutsel.cluster.links import LinearTime, MessageRoutes
from layoutsel.cluster.problem import Cluster
from layoutsel.cost.tensor import Tensor
from layoutsel.search.link_choice import ANY, routes_by_link
from layoutsel.search.offload.slicing import SlicedNetwork
from layoutsel.search.offload.supernet_shape import SupernetShape
from layoutsel.search.offload.times import LinkTimes, OffloadTimes, times_of
from layoutsel.search.offload.transmitted import PRECISIONS
from layoutsel.search.parts import PartGraph, PartSignature, signatures_of
from layoutsel.search.placing import classes_of, cluster_of, placed_us
from layoutsel.search.prices import PriceTable
from tvm_passes.errors import LayoutselError

Pricing = Callable[[Iterable[PartSignature]], PriceTable]
"""Function that prices parts on the classes of the devices."""


@dataclass(frozen=True, kw_only=True)
class SlicedPrediction:
    """Predicted cost of a sliced network."""

    us: float
    """Time of a request, microseconds."""
    spread_us: float
    """Uncertainty of `us`, microseconds."""
    bytes: Mapping[str, int]
    """Bytes by sent tensor."""


class OffloadPrices:
    """Prices on two devices, of which further ones are added on demand.

    Parameters
    ----------
    routes
        Topology of the two devices, in its present state. If the origin has several links to the
        other one, a network uses one of them.
    pricing
        Pricing of parts.
    table
        Known prices.

    Raises
    ------
    LayoutselError
        If the topology has not exactly two nodes that compute.
    """

    def __init__(
        self, routes: MessageRoutes, pricing: Pricing, table: PriceTable | None = None
    ) -> None:
        self.routes, self.pricing = routes, pricing
        self.links = routes_by_link(routes)
        self.table = table or PriceTable(classes={})
        self.classes = classes_of(routes.topology)
        origin = routes.topology.origin
        if len(self.classes) != 2:
            raise LayoutselError(
                f"a topology of {len(self.classes)} computing nodes; expected 2 for offloading"
            )
        (other,) = self.classes.keys() - {origin}
        self.nodes: tuple[str, str] = (origin, other)

    def times(self, shape: SupernetShape) -> OffloadTimes:
        """Prices of a supernet, as arrays."""
        self._complete(signatures_of(shape.space))
        slow = [self.routes.statistics.slowdown(node) for node in self.nodes]

        def price(signature: PartSignature, device: int) -> float:
            return self.table.us(signature, self.classes[self.nodes[device]]) * slow[device]

        return times_of(shape, price, tuple(self._link_times(name) for name in self.links))

    def _link_times(self, name: str) -> LinkTimes:
        first, second = self.nodes
        routes = self.links[name]
        request = LinearTime(us=routes.engine.request_us + routes.call_us(first))
        return LinkTimes(
            name=name,
            message=routes.hand_over(first, second, made=True, read=True),
            answer=routes.hand_over(second, first, made=True, read=False) + request,
        )

    def predict(self, network: SlicedNetwork) -> SlicedPrediction:
        """Predict the time of a sliced network: the planner's cost of its placement."""
        cluster = self.cluster(network)
        placement = {part.name: self.nodes[part.device] for part in network.parts}
        us = placed_us(cluster, placement)
        spreads = [cluster.option(part, node).spread_us for part, node in placement.items()]
        return SlicedPrediction(
            us=us,
            spread_us=math.hypot(cluster.problem.shared_spread * us, *spreads),
            bytes={
                tensor.name.rpartition(".")[0]: tensor.bytes
                for tensor in cluster.graph.tensors
                if tensor.name.rpartition(".")[0] in network.sent
            },
        )

    def cluster(self, network: SlicedNetwork) -> Cluster:
        """Planning problem of a sliced network; sent tensors have the bytes that are sent."""
        full = self.whole(network.graph, network.link)
        tensors = tuple(_as_sent(tensor, network) for tensor in full.graph.tensors)
        return replace(full, graph=replace(full.graph, tensors=tensors))

    def whole(self, graph: PartGraph, link: str = ANY) -> Cluster:
        """Planning problem of a network that sends all channels over a link."""
        self._complete(part.signature for part in graph.parts)
        return cluster_of(graph, self.table, self.routes if link == ANY else self.links[link])

    def _complete(self, signatures: Iterable[PartSignature]) -> None:
        """Price the parts that have no price yet."""
        names = set(self.classes.values())
        known = [self.table.classes[name].us for name in names if name in self.table.classes]
        missing = {
            one
            for one in signatures
            if len(known) < len(names) or any(str(one) not in held for held in known)
        }
        if missing:
            self.table = self.table.merged(self.pricing(missing))


def _as_sent(tensor: Tensor, network: SlicedNetwork) -> Tensor:
    channels = network.sent.get(str(tensor.producer))
    if channels is None:
        return tensor
    shape = (1, len(channels), *tensor.shape[2:])
    size = len(channels) * tensor.shape[2] * tensor.shape[3]
    return replace(tensor, shape=shape, bytes=size * PRECISIONS[network.precision])
