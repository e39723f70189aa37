"""SearchQuestion of a joint search, from files and options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from layoutsel.cluster.engine_probing import engine_between
from layoutsel.cluster.statistics import Statistics
from layoutsel.cluster.topology import Topology
from layoutsel.core.choices import COSTS
from layoutsel.search.default_spaces import check_data, default_space
from layoutsel.search.placing import WORKS
from layoutsel.search.run_folder import SearchQuestion
from layoutsel.search.space import Space
from tvm_passes.errors import LayoutselError

JOINT = "joint"
"""Kind of the search."""
RETRAIN_RATE = 5e-3
"""Largest learning rate of single networks."""


def joint_question(  # noqa: PLR0913 - the settings of a search, most of them with defaults
    topology: Path,
    *,
    data: str = "mnist1d",
    space: Path | None = None,
    statistics: Path | None = None,
    objective: str = "inference",
    max_us: float | None = None,
    queries: int = 60,
    networks: int = 4,
    epochs: int = 30,
    retrain_epochs: int = 15,
    seed: int = 0,
    cost: str = "learned",
    engine: str | None = None,
) -> SearchQuestion:
    """Check the options of a joint search.

    Parameters
    ----------
    topology
        File of nodes and links.
    data
        Data set.
    space
        File of the search space; None for the data set's own.
    statistics
        File of the state of nodes and links; None for idle ones.
    objective
        Entry of :data:`~layoutsel.search.placing.WORKS`.
    max_us
        Limit on the predicted time, microseconds; None for none.
    queries
        Number of networks whose accuracy is asked, with common weights.
    networks
        Number of networks that are trained on their own.
    epochs, retrain_epochs
        Number of passes that train common weights, and each network.
    seed
        Seed of data, weights and draws.
    cost
        Source of prices, as for :func:`layoutsel.plan`.
    engine
        Engine that will run the networks, as for :func:`engine_between`.

    Raises
    ------
    LayoutselError
        If a file is inconsistent, or an option is unknown.
    """
    for name, got, known in (("objective", objective, tuple(WORKS)), ("cost", cost, COSTS)):
        if got not in known:
            raise LayoutselError(f"--{name} {got}: expected one of {', '.join(known)}")
    nodes = Topology.load(topology)
    state = Statistics() if statistics is None else Statistics.load(statistics, nodes)
    asked = default_space(data) if space is None else Space.load(space)
    check_data(asked)
    if networks > queries:
        raise LayoutselError(
            f"--networks {networks}: expected at most the {queries} of --queries, as trained "
            "networks are chosen among those"
        )
    settings = {
        "queries": queries,
        "networks": networks,
        "epochs": epochs,
        "retrain_epochs": retrain_epochs,
    }
    question = SearchQuestion(
        kind=JOINT,
        space=asked,
        topology=nodes,
        statistics=state,
        engine=engine_between(nodes, engine),
        seed=seed,
        settings={name: float(value) for name, value in settings.items()},
        choices={"objective": objective, "cost": cost},
    )
    return question if max_us is None else _limited(question, max_us)


def _limited(question: SearchQuestion, max_us: float) -> SearchQuestion:
    return replace(question, settings={**question.settings, "max_us": max_us})
