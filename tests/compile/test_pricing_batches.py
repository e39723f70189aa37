"""A session prices its whole problem with a few calls of the cost model, whatever the size of the network."""

from __future__ import annotations

import pytest

from layoutsel.compile.measuring import cost_model
from layoutsel.compile.offers import Offers
from layoutsel.compile.pricing import priced_by
from layoutsel.compile.session import Session
from layoutsel.cost.learned import Boosters
from layoutsel.zoo.sweep import sweep_module


@pytest.mark.parametrize("count", [3, 20])
def test_each_part_of_the_model_is_called_once(monkeypatch, tmp_path, count):
    asked = []
    predict = Boosters.predict

    def counted(part, rows, margins):
        asked.append(len(rows))
        return predict(part, rows, margins)

    monkeypatch.setattr(Boosters, "predict", counted)
    session = Session.open(
        sweep_module(count, 5), units=["cpu", "onednn"], threads=2, cache=tmp_path / "m.sqlite"
    )
    offers = Offers.of(session)
    with cost_model(offers, "learned") as model:
        problem = priced_by(offers, model)
    distinct = {
        (offers.asked(subgraph, decision).key, decision)
        for subgraph in session.graph.subgraphs
        for decision in offers.candidates[subgraph.id].decisions
    }
    assert len(asked) == 3  # both units, and the boundaries
    assert sum(asked[:2]) == len(distinct)
    assert sum(len(node.options) for node in problem.nodes) >= len(distinct)
