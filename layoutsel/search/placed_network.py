"""Documents of found networks, from their placements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from layoutsel.cluster.metrics import Predictor, alone
from layoutsel.cluster.problem import Cluster
from layoutsel.cluster.routes import maker_of, readers_of
from layoutsel.search.found import FoundMessage, FoundNetwork
from layoutsel.search.parts import INPUT, PartGraph
from layoutsel.search.placing import INFERENCE, WORKS, cluster_of, placed, placed_us
from layoutsel.search.prices import PriceTable
from layoutsel.search.run_folder import SearchQuestion, routes_of_question
from layoutsel.search.space import Architecture


def found_network(
    question: SearchQuestion,
    table: PriceTable,
    number: int,
    architecture: Architecture,
    graph: PartGraph,
    nodes: Mapping[str, str],
    accuracies: Mapping[str, float],
) -> FoundNetwork:
    """Describe a network with a node for each part.

    Parameters
    ----------
    question
        SearchQuestion of the search.
    table
        Prices of the parts.
    number
        Number in the front.
    architecture
        Channels and operations.
    graph
        Parts of the network.
    nodes
        Node by part.
    accuracies
        Shares of right answers.
    """
    routes = routes_of_question(question)
    work = WORKS[question.choices.get("objective", INFERENCE.name)]
    whole = cluster_of(graph, table, routes, work)
    placement = placed(graph, nodes, work)
    answering = cluster_of(graph, table, routes)
    return FoundNetwork(
        number=number,
        architecture=architecture,
        placement={part.name: nodes[part.name] for part in graph.parts},
        sent=tuple(sent_tensors(answering, graph, placed(graph, nodes))),
        predicted_us=placed_us(whole, placement),
        spread_us=Predictor(whole).sum_spread(whole.problem, alone(placement)),
        accuracies=accuracies,
    )


def sent_tensors(
    cluster: Cluster, graph: PartGraph, placement: Mapping[str, str]
) -> Iterator[FoundMessage]:
    """Yield the tensors that nodes send to each other, each once for each receiver."""
    for tensor in cluster.graph.tensors:
        source = maker_of(cluster, placement, tensor)
        name = INPUT if tensor.producer is None else str(tensor.producer)
        channels = graph.shape(name)[0]
        for node in sorted(readers_of(cluster, placement, tensor) - {source}):
            yield FoundMessage(
                tensor=name,
                source=source,
                destination=node,
                bytes=int(tensor.bytes),
                channels=channels,
                all_channels=channels,
            )
