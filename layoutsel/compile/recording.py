"""Record of a session's model without code, for planning again with costs from a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layoutsel.cost.samples import Offer, RecordedModel, RecordedNode

if TYPE_CHECKING:
    from layoutsel.compile.offers import Offers


def recorded_model(offers: Offers) -> RecordedModel:
    """Record the sub-graphs, candidates and tensors of a session."""
    session = offers.session
    nodes = []
    for subgraph in session.graph.subgraphs:
        found = []
        for decision in offers.candidates[subgraph.id].decisions:
            inputs, outputs = session.functions.ports(subgraph.id, decision)
            found.append(Offer(decision=decision, in_layouts=inputs, out_layouts=outputs))
        key = subgraph.structural_hash
        nodes.append(RecordedNode(id=subgraph.id, key=key, offers=tuple(found)))
    return RecordedModel(
        name=session.model.name,
        machine=offers.costs.profile.name,
        nodes=tuple(nodes),
        tensors=session.graph.tensors,
    )
