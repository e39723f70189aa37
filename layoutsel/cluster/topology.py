"""Topologies: nodes with compute units, joined by links; node-link JSON, as networkx writes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from layoutsel import documents
from layoutsel.cluster.topology_checks import topology_faults
from layoutsel.cluster.vertices import (
    NODE,
    SWITCH,
    Header,
    Link,
    Node,
    Power,
    TopologyData,
)
from layoutsel.documents.saved import Fault, SavedDocument, reject

__all__ = ["NODE", "SCHEMA_VERSION", "SWITCH", "Header", "Link", "Node", "Power", "Topology"]

SCHEMA_VERSION = 1
"""Version of topology files."""
RENEW = "Write the topology anew, see the user guide"
"""Advice on a topology file whose version is no longer supported."""


@dataclass(frozen=True, kw_only=True)
class Topology(SavedDocument, TopologyData):
    """Nodes and links, consistent with each other."""

    def without(self, node: str) -> Topology:
        """Copy the topology without a node, its links, and the nodes that it is the gateway of."""
        lost = {node, *(one.id for one in self.nodes if one.via == node)}
        return replace(
            self,
            nodes=tuple(one for one in self.nodes if one.id not in lost),
            links=tuple(one for one in self.links if not {one.source, one.target} & lost),
        )

    def faults(self, links: str = "links") -> Iterator[Fault]:
        """Yield the inconsistencies; `links` is the name of the list of links in the file."""
        return topology_faults(self, links)

    @classmethod
    def read(cls, document: Any, *, file: str = "document") -> Topology:
        """Read a topology from JSON; the links are called ``links`` or ``edges``.

        Raises
        ------
        DocumentError
            If the JSON does not fit, or the topology is inconsistent; names the first such value.
        """
        header = document.get("graph") if isinstance(document, dict) else None
        documents.check_version(
            header, "schema_version", (SCHEMA_VERSION,), renew=RENEW, file=file, path="$.graph"
        )
        if isinstance(document, dict) and "edges" in document and "links" not in document:
            read = documents.from_json(_WithEdges, document, file=file)
            found = cls(
                directed=read.directed,
                multigraph=read.multigraph,
                graph=read.graph,
                nodes=read.nodes,
                links=read.edges,
            )
            reject(found.faults("edges"), file)
            return found
        return super().read(document, file=file)


@dataclass(frozen=True, kw_only=True)
class _WithEdges:
    """A topology as networkx writes it from version 3.6 on."""

    directed: bool
    multigraph: bool
    graph: Header
    nodes: tuple[Node, ...]
    edges: tuple[Link, ...]
