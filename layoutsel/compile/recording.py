"""A session's model without its code: what data sets keep of it, to be planned again with other costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layoutsel.building.problem import tensors
from layoutsel.cost.samples import Offer, RecordedModel, RecordedNode
from tvm_passes.ports import port_layouts

if TYPE_CHECKING:
    from layoutsel.compile.session import Session


def recorded_model(session: Session) -> RecordedModel:
    """Sub-graphs, candidates and tensors, to be planned again with costs from a data set."""
    nodes = []
    for subgraph in session.graph.subgraphs:
        function = session.graph.functions[subgraph.id]
        offers = []
        for decision in session.candidates[subgraph.id].decisions:
            inputs, outputs = port_layouts(function, decision)
            offers.append(Offer(decision=decision, in_layouts=inputs, out_layouts=outputs))
        key = subgraph.structural_hash
        nodes.append(RecordedNode(id=subgraph.id, key=key, offers=tuple(offers)))
    return RecordedModel(
        name=session.model.name,
        machine=session.profile.name,
        nodes=tuple(nodes),
        tensors=tuple(tensors(session.graph.edges)),
    )
