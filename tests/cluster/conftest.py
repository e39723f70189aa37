"""A small network in atoms, compiled once, and controllers that run it on faulty nodes."""

from __future__ import annotations

import pytest
from divided import LIMIT_S, ORIGIN, network, plan_in_atoms
from faulty import Faulty

import layoutsel
from layoutsel.cluster.controller import Controller
from layoutsel.cluster.engine import Announced
from layoutsel.cluster.local_engine import LocalEngine
from layoutsel.cluster.node_queues import ClusterLimits

NODES = ("edge", "a", "b")


@pytest.fixture(scope="module")
def compiled():
    return layoutsel.compile_plan(network(), plan_in_atoms(network()))


@pytest.fixture(scope="module")
def artifact(compiled, tmp_path_factory):
    return Announced.of(compiled.save(tmp_path_factory.mktemp("atoms") / "model.so"))


@pytest.fixture(scope="module")
def stages():
    return plan_in_atoms(network()).stages


@pytest.fixture
def engine(artifact):
    engine = Faulty(LocalEngine(dict.fromkeys(NODES, 1)))
    for node in NODES:
        engine.load(node, artifact, LIMIT_S)
    yield engine
    engine.close()


@pytest.fixture
def controller(engine, artifact, monkeypatch):
    """Makes controllers, which leave their nodes time: a busy machine keeps threads waiting.

    Lost nodes of these tests answer an examination at once, so it takes no longer.
    """
    monkeypatch.setattr("layoutsel.cluster.health.EXAMINE_S", 20)
    made = []

    def make(distribution, **options):
        limits = ClusterLimits(**options.pop("limits", {}))
        revive = lambda node, limit_s: engine.load(node, artifact, limit_s)  # noqa: E731
        made.append(
            Controller(engine, distribution, ORIGIN, limits=limits, revive=revive, **options)
        )
        return made[-1]

    yield make
    for one in made:
        one.close()
