"""Networks whose accuracy is asked: chosen by exact fronts of a surrogate, and kept in a log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from layoutsel.search.blas_threads import one_blas_thread
from layoutsel.search.dominance import hypervolume, non_dominated
from layoutsel.search.fastest import fastest
from layoutsel.search.found import TUNE
from layoutsel.search.front import FrontPoint, Scores
from layoutsel.search.joint.posterior import Posterior
from layoutsel.search.label_setting import front_of
from layoutsel.search.placing import WORKS
from layoutsel.search.prices import PriceTable
from layoutsel.search.product_graph import product_graph
from layoutsel.search.run_folder import RunFolder, routes_of_question
from layoutsel.search.space import Architecture

ROUND = 8
"""Number of networks that are asked between two fits of the surrogate."""
FIRST_SHARE = 0.3
"""Share of the queries for random networks, before the first fit."""
FRONT_LIMIT_S = 2.0
"""Time after which a front with limits of memory drops labels, seconds."""
_DRAWS = 3
"""Number of draws of the surrogate's weights in a round, in addition to their means."""
_ATTEMPTS = 200
"""Most draws of random networks in a round."""


@dataclass(frozen=True, kw_only=True)
class _Query:
    """A network whose accuracy was asked, in the log."""

    architecture: Architecture
    """Network."""
    accuracy: float
    """Share of right answers."""


class AskedNetworks:
    """Accuracies so far, and the choice of the next networks.

    Parameters
    ----------
    run
        Folder of the search; its log holds the accuracies.
    table
        Prices of the parts of the space.

    Raises
    ------
    NoNetwork
        If no network keeps the limits; names the tightest one.
    """

    def __init__(self, run: RunFolder, table: PriceTable) -> None:
        self.run, self.table = run, table
        self.space, self.settings = run.question.space, run.question.settings
        self.most_us = self.settings.get("max_us", np.inf)
        self._routes = routes_of_question(run.question)
        self._work = WORKS[run.question.choices["objective"]]
        self.graph = product_graph(self.space, table, self._routes, self._work)
        self._proven: list[bool] = []
        # The fastest network shows that the limits can be kept, before any training.
        self.least_us = self._front(Scores(single=()))[0].us
        self.accuracies: dict[Architecture, float] = {}
        """Accuracy by network."""
        self._points: dict[Architecture, FrontPoint | None] = {}
        for asked in run.logged("query", _Query):
            self.space.check_architecture(asked.architecture)
            self.accuracies[asked.architecture] = asked.accuracy
        self.trained: dict[Architecture, float] = {
            one.architecture: one.accuracies[TUNE] for one in run.found()
        }
        """Validation accuracy after its own training, by network."""

    @property
    def left(self) -> int:
        """Number of queries that are left."""
        return int(self.settings["queries"]) - len(self.accuracies)

    def next(self) -> list[Architecture]:
        """Networks to ask next; empty when all queries are used."""
        count, known = min(self.left, ROUND), len(self.accuracies)
        if count <= 0:
            return []
        random = np.random.default_rng((self.run.question.seed, known))
        first = int(FIRST_SHARE * self.settings["queries"]) - known
        if first > 0:
            return self._random(min(count, first), random)
        chosen = self._promising(count, random)
        return chosen + self._random(count - len(chosen), random, chosen)

    def add(self, asked: Sequence[Architecture], accuracies: Sequence[float]) -> None:
        """Keep accuracies, in the log as well."""
        for network, accuracy in zip(asked, accuracies, strict=True):
            self.accuracies[network] = accuracy
            self.run.log("query", architecture=network, accuracy=accuracy)
        self.run.log("round", queries=len(self.accuracies), hypervolume=self.hypervolume)

    def point(self, network: Architecture) -> FrontPoint | None:
        """Fastest placement of a network; None if none keeps the limits."""
        if network not in self._points:
            self._points[network] = self._fastest(network)
        return self._points[network]

    @property
    def known_points(self) -> list[FrontPoint]:
        """Fastest placements of the networks so far, with their accuracies as scores."""
        return [
            replace(point, score=accuracy)
            for network, accuracy in self.accuracies.items()
            if (point := self.point(network)) is not None
        ]

    @property
    def hypervolume(self) -> float:
        """Share of the box up to the slowest network so far and chance that the networks dominate.

        Logarithms of times are compared, from the fastest network of the space on.
        """
        points = self.known_points
        chance = 1 / self.space.classes
        us = np.log([one.us / self.least_us for one in points])
        scores = np.array([one.score for one in points])
        most = max(float(us.max(initial=0.0)), 1e-9)
        return hypervolume(us, scores, (most, chance)) / (most * (1 - chance))

    def next_to_train(self) -> FrontPoint | None:
        """Network to train on its own next, with its placement; None when enough are trained.

        The first half is spread over the front of the accuracies with common weights. Then the
        front is that of corrected accuracies, and its network furthest from trained ones is next.
        """
        count = int(self.settings["networks"])
        if len(self.trained) >= count:
            return None
        first = spread(_front(self.known_points), -(-count // 2))
        fresh = [one for one in first if one.architecture not in self.trained]
        if fresh:
            return fresh[0]
        corrected = self.corrected()
        front = _front(
            [replace(one, score=corrected[one.architecture]) for one in self.known_points]
        )
        fresh = [one for one in front if one.architecture not in self.trained]
        known_us = np.log([one.us for one in self.known_points if one.architecture in self.trained])
        return max(
            fresh,
            key=lambda one: float(np.abs(np.log(one.us) - known_us).min(initial=np.inf)),
            default=None,
        )

    def corrected(self) -> dict[Architecture, float]:
        """Accuracies after training, of the trained networks and as predicted of the others.

        What training adds is a Gaussian process of the layers' choices, given the trained networks
        (Kennedy and O'Hagan, "Predicting the output from a complex computer code when fast
        approximations are available", 2000).
        """
        gains = [accuracy - self.accuracies[one] for one, accuracy in self.trained.items()]
        if not gains:
            return dict(self.accuracies)
        with one_blas_thread():
            gain = Posterior.fit(self.graph, list(self.trained), gains)
            return {
                one: self.trained.get(one, accuracy + gain.predict(one))
                for one, accuracy in self.accuracies.items()
            }

    def state(self) -> str:
        """Progress in one line."""
        best = max(self.accuracies.values())
        return (
            f"asked {len(self.accuracies)} networks: at most {100 * best:.1f} % right, "
            f"hypervolume {self.hypervolume:.4f}; {sum(self._proven)} of {len(self._proven)} "
            "fronts proven"
        )

    def _promising(self, count: int, random: np.random.Generator) -> list[Architecture]:
        """Networks of exact fronts of the surrogate, by its means and by draws."""
        with one_blas_thread():
            posterior = Posterior.fit(
                self.graph, list(self.accuracies), list(self.accuracies.values())
            )
            scores = [posterior.scores, *(posterior.draw(random) for _ in range(_DRAWS))]
        found: list[Architecture] = []
        for one in scores:
            front = self._front(one)
            fresh = [
                point
                for point in front
                if point.architecture not in self.accuracies and point.architecture not in found
            ]
            share = -(-count // len(scores))
            found += [point.architecture for point in spread(fresh, share)]
        return found[:count]

    def _random(
        self, count: int, random: np.random.Generator, chosen: Sequence[Architecture] = ()
    ) -> list[Architecture]:
        """Networks that were not asked before, and keep the limits."""
        found: list[Architecture] = []
        for _ in range(_ATTEMPTS):
            if len(found) >= count:
                break
            network = self._drawn(random)
            is_new = network not in self.accuracies and network not in (*chosen, *found)
            if is_new and self.point(network) is not None:
                found.append(network)
        return found

    def _drawn(self, random: np.random.Generator) -> Architecture:
        """Draw any network, or with a limit of time one of a front of random scores.

        Few of all networks may keep a limit.
        """
        if np.isinf(self.most_us):
            return self.space.draw(random)
        sizes = [len(layer.choices) for layer in self.graph.layers[1:-1]]
        scores = Scores(single=tuple(random.normal(size=size) for size in sizes))
        front = self._front(scores)
        return front[random.integers(len(front))].architecture

    def _front(self, scores: Scores) -> tuple[FrontPoint, ...]:
        found = front_of(self.graph, scores, most_us=self.most_us, time_limit_s=FRONT_LIMIT_S)
        self._proven.append(found.is_proven)
        return found.points

    def _fastest(self, network: Architecture) -> FrontPoint | None:
        return fastest(self.space, network, self.table, self._routes, self._work, self.most_us)


def _front(points: Sequence[FrontPoint]) -> list[FrontPoint]:
    """Non-dominated networks, in ascending order of time and score."""
    us, scores = (np.array([getattr(one, name) for one in points]) for name in ("us", "score"))
    return [points[index] for index in non_dominated(us, scores, np.zeros((len(us), 0)))]


def spread(front: Sequence[FrontPoint], count: int) -> list[FrontPoint]:
    """Points of a front with both ends and about equal steps between them, in order."""
    if count >= len(front):
        return list(front)
    steps = np.linspace(0, len(front) - 1, count) if count > 1 else [len(front) - 1]
    return [front[index] for index in dict.fromkeys(round(float(step)) for step in steps)]
