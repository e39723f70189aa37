"""Choice of a request's route: by weight, and around lost nodes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from layoutsel.cluster.distribution import Distribution, Route


class WeightedRoutes:
    """Deals out routes so that every prefix of the requests has nearly the shares of the weights.

    Deficit round robin: every route earns its weight at each request, the richest takes it and
    pays the sum of the weights.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = tuple(route for route in routes if route.weight > 0)
        self._credit = [0.0] * len(self._routes)
        self._sum = sum(route.weight for route in self._routes)

    def next(self) -> Route:
        """Route of the next request."""
        for index, route in enumerate(self._routes):
            self._credit[index] += route.weight
        richest = max(range(len(self._routes)), key=self._credit.__getitem__)
        self._credit[richest] -= self._sum
        return self._routes[richest]

    def __len__(self) -> int:
        return len(self._routes)


def nodes_of(route: Route) -> frozenset[str]:
    """Nodes that compute on a route."""
    return frozenset(segment.node for segment in route.segments)


class Epoch:
    """The routes of one distribution, from its start to its replacement."""

    def __init__(self, number: int, distribution: Distribution) -> None:
        self.number = number
        self.distribution = distribution
        self._dealers: dict[frozenset[str], WeightedRoutes] = {}

    def route(self, lost: Collection[str]) -> Route | None:
        """Route of the next request that avoids nodes; None if there is none.

        Routes made for the loss of one of the nodes come first, then all others.
        """
        dealer = self._dealer(lost)
        return dealer.next() if len(dealer) else None

    def avoids(self, lost: Collection[str]) -> bool:
        """True if there is a route that avoids nodes."""
        return len(self._dealer(lost)) > 0

    def all_routes(self) -> tuple[Route, ...]:
        """All routes, those without single nodes included."""
        return tuple(route for routes in self._choices(()) for route in routes)

    def _dealer(self, lost: Collection[str]) -> WeightedRoutes:
        key = frozenset(lost)
        if key not in self._dealers:
            self._dealers[key] = WeightedRoutes(self._avoiding(key))
        return self._dealers[key]

    def _avoiding(self, lost: frozenset[str]) -> tuple[Route, ...]:
        for routes in self._choices(sorted(lost)):
            if left := tuple(one for one in routes if one.weight > 0 and not nodes_of(one) & lost):
                return left
        return ()

    def _choices(self, lost: Collection[str]) -> Iterable[tuple[Route, ...]]:
        without = self.distribution.without
        yield from (without[node] for node in lost if node in without)
        yield self.distribution.routes
        yield from (routes for node, routes in without.items() if node not in lost)
