"""Pareto fronts: no distribution beats another one, and all placements are covered."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from layoutsel.cluster.distribution import Distributions
from layoutsel.cluster.metrics import ENERGY, LATENCY, MEMORY, METRICS, THROUGHPUT, Predictor, alone
from layoutsel.cluster.pareto import pareto
from layoutsel.cluster.redistributing import cluster_of as known_cluster
from layoutsel.cluster.statistics import Statistics
from layoutsel.planning.problem import ProblemError
from tests.cluster.clusters import cluster_of, star, two_branches


@pytest.fixture(scope="module")
def known() -> Distributions:
    cluster = cluster_of(two_branches(2), star(3, gbps=10.0), classes=["x", "y"])
    return Distributions(
        schema_version=1,
        model_name="m",
        model_hash="h",
        topology=cluster.topology,
        statistics=Statistics(),
        classes=cluster.classes,
        plans={},
        distributions=(),
        graph=cluster.graph,
        costs=cluster.costs,
    )


def costs(metrics: dict[str, float], names) -> tuple[float, ...]:
    """Values of which less is better."""
    return tuple(-metrics[n] if METRICS[n].maximised else metrics[n] for n in names)


@pytest.mark.parametrize(
    "names", [(LATENCY, THROUGHPUT), (THROUGHPUT, LATENCY), (LATENCY, MEMORY), (ENERGY, LATENCY)]
)
def test_no_placement_beats_the_front(known, names):
    """All placements of single nodes to atoms are tried."""
    front = pareto(known, names, points=6, time_limit_s=1.0)
    values = [
        costs({name: one.metrics[name].predicted for name in names}, names)
        for one in front.distributions
    ]
    assert values
    for before, after in itertools.pairwise(values):
        assert before[0] < after[0]
        assert before[1] > after[1]
    predictor = Predictor(known_cluster(known))
    atoms = list(known.graph.atoms)
    best = [min(column) for column in zip(*values, strict=True)]
    for nodes in itertools.product(predictor.cluster.nodes, repeat=len(atoms)):
        found = costs(predictor.values(alone(dict(zip(atoms, nodes, strict=True)))), names)
        # Nothing is better than the ends; between them, nothing beats a distribution in both.
        assert all(value >= end - 1e-6 * abs(end) for value, end in zip(found, best, strict=True))
        assert not any(
            all(value < own - 1e-3 * abs(own) for value, own in zip(found, one, strict=True))
            for one in values
        )


@pytest.mark.parametrize("names", [(LATENCY,), (LATENCY, LATENCY), (LATENCY, ENERGY, MEMORY)])
def test_two_different_targets_are_needed(known, names):
    with pytest.raises(ProblemError, match="expected two different ones"):
        pareto(known, names)


def test_one_point_is_no_front(known):
    with pytest.raises(ProblemError, match="points: got 1; expected at least 2"):
        pareto(known, (LATENCY, MEMORY), points=1)


def test_the_times_of_atoms_are_needed(known):
    with pytest.raises(ProblemError, match="lack the times of their atoms"):
        pareto(replace(known, graph=None), (LATENCY, MEMORY))
