"""Choice of the networks that are asked: exact fronts of a surrogate, and a log to go on with."""

from __future__ import annotations

import itertools
import zlib
from dataclasses import replace

import numpy as np
import pytest
from joint_spaces import SIGNALS
from test_search_deploying import question

from layoutsel.search.fastest import only
from layoutsel.search.front import FrontPoint, NoNetwork
from layoutsel.search.joint.asking import AskedNetworks, spread
from layoutsel.search.joint.posterior import Posterior
from layoutsel.search.parts import parts_of
from layoutsel.search.placing import cluster_of, placed_us
from layoutsel.search.run_folder import RunFolder, routes_of_question
from layoutsel.search.space import Cell
from tests.search.spaces import random_prices

WIDE = replace(
    SIGNALS,
    cells=tuple(
        Cell(name=f"c{n}", channels=(8, 12), operations=("skip", "conv3", "conv5", "separable3"))
        for n in range(4)
    ),
)
"""Chains of four layers: a few thousand networks."""
SETTINGS = {"queries": 44.0, "networks": 3.0, "epochs": 1.0, "retrain_epochs": 1.0}


def asked_question(**settings):
    choices = {"objective": "inference", "cost": "roofline"}
    return replace(question(), space=WIDE, settings={**SETTINGS, **settings}, choices=choices)


def prices():
    return random_prices(WIDE, asked_question().topology, 0)


def begun(folder, **settings):
    run = RunFolder.begin(folder, asked_question(**settings), folder)
    return AskedNetworks(run, prices())


def truth(network):
    """Accuracy with effects of choices and of neighbours, and a little noise."""
    values = {"skip": 0.0, "conv3": 0.10, "conv5": 0.13, "separable3": 0.08}
    names = [operation for (operation,) in network.operations]
    total = 0.3 + sum(values[one] for one in names) + 0.002 * sum(network.channels) / 4
    total -= 0.05 * sum(a == b == "conv5" for a, b in itertools.pairwise(names))
    return total + 0.002 * (zlib.crc32(repr(network).encode()) % 7)


def finished(asked):
    while chosen := asked.next():
        assert len(set(chosen)) == len(chosen)
        assert not set(chosen) & asked.accuracies.keys()
        asked.add(chosen, [truth(one) for one in chosen])
    return asked


def test_all_queries_are_used_for_different_networks(tmp_path):
    asked = finished(begun(tmp_path / "run"))
    assert len(asked.accuracies) == 44
    volumes = [event["hypervolume"] for event in asked.run.events("round")]
    assert 0 < volumes[0] < volumes[-1] <= 1


def test_the_surrogate_finds_better_networks_than_chance(tmp_path):
    random = np.random.default_rng(1)
    asked = finished(begun(tmp_path / "run"))
    drawn = begun(tmp_path / "drawn")
    networks = [WIDE.draw(random) for _ in range(44)]
    drawn.add(networks, [truth(one) for one in networks])
    most = max(max(one.us for one in each.known_points) for each in (asked, drawn))

    def dominated(each):
        """Share of the times of a fine grid, weighted by the best accuracy within each."""
        points = each.known_points
        grid = np.linspace(each.least_us, most, 200)
        return np.mean([max((p.score for p in points if p.us <= us), default=0) for us in grid])

    assert dominated(asked) > dominated(drawn) + 0.01


def test_a_search_goes_on_with_its_log(tmp_path):
    first = begun(tmp_path / "run")
    for _ in range(2):
        chosen = first.next()
        first.add(chosen, [truth(one) for one in chosen])
    again = begun(tmp_path / "run")
    assert again.accuracies == first.accuracies
    assert again.next() == first.next()


def test_points_have_the_least_time_of_all_placements(tmp_path):
    asked = begun(tmp_path / "run")
    routes = routes_of_question(asked.run.question)
    for network in asked.next()[:4]:
        graph = parts_of(WIDE, network)
        cluster = cluster_of(graph, asked.table, routes)
        names = [part.name for part in graph.parts]
        least = min(
            placed_us(cluster, dict(zip(names, nodes, strict=True)))
            for nodes in itertools.product(cluster.nodes, repeat=len(names))
        )
        assert asked.point(network).us == pytest.approx(least)


def test_limits_that_no_network_keeps_are_named_before_any_training(tmp_path):
    with pytest.raises(NoNetwork, match=r"no network takes at most 1 us: the fastest of the space"):
        begun(tmp_path / "run", max_us=1.0)


def test_networks_beyond_the_limit_are_not_asked(tmp_path):
    free = begun(tmp_path / "free")
    limit = 1.5 * free.least_us
    asked = finished(begun(tmp_path / "run", max_us=limit, queries=20.0))
    assert all(asked.point(one).us <= limit for one in asked.accuracies)
    assert len(asked.accuracies) == 20


def test_one_network_is_a_space():
    network = WIDE.draw(np.random.default_rng(3))
    assert list(only(WIDE, network).architectures()) == [network]


def test_a_spread_has_both_ends():
    front = [
        FrontPoint(us=float(n), score=float(n), architecture=None, nodes={}) for n in range(10)
    ]
    assert [one.us for one in spread(front, 3)] == [0, 4, 9]
    assert [one.us for one in spread(front, 1)] == [9]
    assert spread(front[:2], 3) == front[:2]


def test_the_surrogate_learns_choices_and_neighbours(tmp_path):
    asked, random = begun(tmp_path / "run"), np.random.default_rng(0)
    networks = list({WIDE.draw(random): None for _ in range(150)})
    known, unseen = networks[:110], networks[110:]
    posterior = Posterior.fit(asked.graph, known, [truth(one) for one in known])
    errors = [posterior.predict(one) - truth(one) for one in unseen]
    spread_of_truth = np.std([truth(one) for one in unseen])
    assert np.std(errors) < 0.35 * spread_of_truth


def test_draws_agree_with_the_means_where_much_is_known(tmp_path):
    asked, random = begun(tmp_path / "run"), np.random.default_rng(0)
    networks = list({WIDE.draw(random): None for _ in range(200)})
    posterior = Posterior.fit(asked.graph, networks, [truth(one) for one in networks])
    layers = posterior.layers
    mean = posterior.scores
    drawn = [posterior.draw(random) for _ in range(40)]

    def score(scores, network):
        index = [
            layer.choices.index((operation, channels))
            for layer, (operation,), channels in zip(
                layers, network.operations, network.channels, strict=True
            )
        ]
        pairs = zip(scores.pairs, itertools.pairwise(index), strict=True)
        single = zip(scores.single, index, strict=True)
        return scores.base + sum(v[i] for v, i in single) + sum(v[ij] for v, ij in pairs)

    for network in networks[:20]:
        assert score(mean, network) == pytest.approx(posterior.predict(network))
        values = [score(one, network) for one in drawn]
        assert abs(np.mean(values) - score(mean, network)) < 4 * np.std(values) / np.sqrt(40)
        assert np.std(values) < np.std([truth(one) for one in networks])


def test_trained_networks_correct_the_choice_of_the_next_one(tmp_path):
    """Common weights rate ``conv5`` too high; two trained networks tell, and others are chosen."""
    asked = finished(begun(tmp_path / "run", networks=4.0, queries=60.0))

    def after(network, penalty):
        fives = sum(operation == "conv5" for (operation,) in network.operations)
        return asked.accuracies[network] + 0.05 - penalty * fives

    chosen = {}
    for penalty in (0.0, 0.2):
        asked.trained.clear()
        while (point := asked.next_to_train()) is not None:
            asked.trained[point.architecture] = after(point.architecture, penalty)
        chosen[penalty] = list(asked.trained)
        assert len(set(chosen[penalty])) == 4
        fives = np.array([sum(o == "conv5" for (o,) in one.operations) for one in asked.accuracies])
        gains = np.array(
            [asked.corrected()[one] - asked.accuracies[one] for one in asked.accuracies]
        )
        if penalty:
            assert np.corrcoef(fives, gains)[0, 1] < -0.5
        else:
            np.testing.assert_allclose(gains, 0.05, atol=1e-6)
    assert chosen[0.0][:2] == chosen[0.2][:2]
    assert chosen[0.0][2:] != chosen[0.2][2:]


def test_no_trained_network_leaves_accuracies_as_they_are(tmp_path):
    asked = begun(tmp_path / "run")
    networks = asked.next()
    asked.add(networks, [truth(one) for one in networks])
    assert asked.corrected() == asked.accuracies
