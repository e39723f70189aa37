"""Planning problem of a network over nodes: one candidate of each atom for each node.

Nodes of one machine class have equal artifacts, which hold the whole network compiled by one plan.
An atom is a stage of that plan. Its time on a node is that of the stage, with the transforms of its
inputs; it depends on no other node. Between nodes, tensors are sent once to each node that reads
them. A node of another class that reads a tensor in another layout transforms it first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from layoutsel import documents
from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.resources import ClusterResources, MessageParts
from layoutsel.cluster.topology import Topology
from layoutsel.cost.place import HOST, PLAIN
from layoutsel.cost.tensor import Tensor, TensorUse
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph, ProblemError
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.units.entry import HOST_UNIT

Placement = Mapping[str, str]
"""Node of each atom."""


@dataclass(frozen=True, kw_only=True)
class AtomGraph:
    """A network as atoms and the tensors between them."""

    atoms: Mapping[str, tuple[SubgraphId, ...]]
    """Sub-graphs by atom, in a valid order of execution."""
    tensors: tuple[Tensor, ...]
    """Tensors between atoms; producers and consumers are atoms, and prices are absent."""
    weight_bytes: Mapping[str, float]
    """Bytes of the weights by atom."""
    inner_bytes: Mapping[str, float] = field(default_factory=dict, metadata=documents.OPTIONAL)
    """Most bytes of tensors that live at once within an atom; absent ones have none."""
    names: Mapping[str, str] = field(default_factory=dict, metadata=documents.OPTIONAL)
    """Names of the tensors in the network by :attr:`Tensor.name`; absent ones have the same."""
    model_name: str = field(default="", metadata=documents.OPTIONAL)
    """Name of the model."""
    model_hash: str = field(default="", metadata=documents.OPTIONAL)
    """Hash of the model."""

    def name(self, tensor: Tensor) -> str:
        """Name of a tensor in the network."""
        return self.names.get(tensor.name, tensor.name)


@dataclass(frozen=True, kw_only=True)
class ClassCosts:
    """Times of the atoms on the nodes of one machine class, as profiled."""

    us: Mapping[str, float]
    """Time of each atom with the transforms of its inputs, microseconds."""
    spread_us: Mapping[str, float] = field(default_factory=dict, metadata=documents.OPTIONAL)
    """Uncertainty of `us`, microseconds; absent ones are certain."""
    repack_us: Mapping[str, Mapping[str, float]] = field(
        default_factory=dict, metadata=documents.OPTIONAL
    )
    """Time to transform a received tensor, by the sender's class and :attr:`Tensor.name`.

    Absent ones need no transform.
    """
    shared_spread: float = field(default=0.0, metadata=documents.OPTIONAL)
    """Relative uncertainty that all times have in common."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """All that distributions of one network over one topology depend on."""

    graph: AtomGraph
    """Network to distribute."""
    classes: Mapping[str, str]
    """Machine class by node."""
    costs: Mapping[str, ClassCosts]
    """Times by machine class."""
    routes: MessageRoutes
    """Topology in its present state, with its routes."""
    most_bytes: float | None = None
    """Limit on the memory of every node, bytes; None without one."""

    @property
    def topology(self) -> Topology:
        """Topology of the nodes."""
        return self.routes.topology

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """Nodes that compute, the origin first."""
        ids = [node.id for node in self.topology.computing]
        return tuple(sorted(ids, key=lambda id_: id_ != self.topology.origin))

    @cached_property
    def problem(self) -> PlanningProblem:
        """Planning problem with one candidate of each atom for each node."""
        parts: dict[tuple[str, str, float], MessageParts] = {}
        found = PlanningProblem(
            nodes=tuple(self._atom(atom) for atom in self.graph.atoms),
            tensors=tuple(self._priced(tensor, parts) for tensor in self.graph.tensors),
            model_name=self.graph.model_name,
            model_hash=self.graph.model_hash,
            resources=ClusterResources(self.routes, parts),
            shared_spread=max((cost.shared_spread for cost in self.costs.values()), default=0.0),
        )
        if not found.nodes:
            raise ProblemError("the network has no sub-graph: nothing can be distributed")
        return found

    def decisions(self, placement: Placement) -> dict[SubgraphId, Decision]:
        """Convert a placement to decisions of :attr:`problem`."""
        return {SubgraphId(atom): self._placed[node] for atom, node in placement.items()}

    def placement(self, decisions: Mapping[SubgraphId, Decision]) -> dict[str, str]:
        """Convert decisions of :attr:`problem` to a placement."""
        return {str(atom): self.node_of(decision) for atom, decision in decisions.items()}

    def node_of(self, decision: Decision) -> str:
        """Node of a decision; the origin is this node."""
        return decision.node or self.topology.origin

    def node_in(self, memory: str) -> str:
        """Node of a memory of :attr:`problem`."""
        return self._nodes[memory]

    def capacity(self, node: str) -> float | None:
        """Memory for weights and activations, bytes; None without a limit."""
        own, free = self.topology.by_id[node].memory_bytes, self.routes.statistics.free_bytes(node)
        limits = (own, free, self.most_bytes)
        return min((limit for limit in limits if limit is not None), default=None)

    def without(self, node: str) -> Cluster:
        """Copy the cluster without a node and those that it is the gateway of.

        Raises
        ------
        ProblemError
            If the node is the origin.
        """
        if node == self.topology.origin:
            raise ProblemError(f"node {node!r} is the origin: without it, there are no requests")
        routes = MessageRoutes(
            self.topology.without(node), self.routes.statistics, self.routes.engine
        )
        left = {one.id for one in routes.topology.computing}
        return replace(
            self,
            routes=routes,
            classes={id_: name for id_, name in self.classes.items() if id_ in left},
        )

    @cached_property
    def _nodes(self) -> dict[str, str]:
        return {self.routes.processor(node): node for node in self.nodes}

    @cached_property
    def _placed(self) -> dict[str, Decision]:
        origin = self.topology.origin
        return {
            id_: Decision(unit=HOST_UNIT, node="" if id_ == origin else id_) for id_ in self.nodes
        }

    def _atom(self, atom: str) -> PricedSubgraph:
        inputs = sum(use.consumer == atom for tensor in self.graph.tensors for use in tensor.uses)
        outputs = sum(tensor.producer == atom for tensor in self.graph.tensors)
        return PricedSubgraph(
            id=SubgraphId(atom),
            options=tuple(self._option(atom, node, inputs, outputs) for node in self.nodes),
            names=tuple(self.graph.atoms[atom]),
        )

    def _option(self, atom: str, node: str, inputs: int, outputs: int) -> Option:
        costs, statistics = self.costs[self.classes[node]], self.routes.statistics
        us = costs.us[atom] * statistics.slowdown(node)
        if atom == next(iter(self.graph.atoms)):
            us += self.routes.call_us(node)
        own_us = costs.spread_us.get(atom, 0.0) * statistics.slowdown(node)
        return Option(
            decision=self._placed[node],
            cost_us=us,
            spread_us=own_us + statistics.spread(node) * us,
            in_layouts=(PLAIN,) * inputs,
            out_layouts=(PLAIN,) * outputs,
            source=f"class {self.classes[node]}",
        )

    def _priced(self, tensor: Tensor, parts: dict[tuple[str, str, float], MessageParts]) -> Tensor:
        """Price the messages of a tensor, with the transforms by their receivers."""
        origin, memory, routes = self.topology.origin, self.routes.processor, self.routes
        made, read = tensor.producer is not None, any(use.consumer for use in tensor.uses)
        copies: dict[tuple[str, str], float] = {}
        for source in (origin,) if tensor.producer is None else self.nodes:
            for node in self.nodes:
                if node == source:
                    continue
                ends = memory(source), memory(node)
                transform_us = self.repack_us(tensor, source, node)
                line = routes.hand_over(source, node, made=made, read=read)
                us = line.at(tensor.bytes) + transform_us
                copies[ends] = us
                engine_us = line.us - routes.route(source, node).line.us
                if transform_us or engine_us:
                    parts[ends[0], ends[1], us] = MessageParts(
                        tensor.bytes, transform_us, engine_us
                    )
        units = (HOST, HOST_UNIT), (HOST_UNIT, HOST)
        return replace(
            tensor, transform_us={}, crossing_us=dict.fromkeys(units, 0.0), copy_us=copies
        )

    def option(self, atom: str, node: str) -> Option:
        """Candidate of an atom on a node."""
        return self.problem.by_id[SubgraphId(atom)].option(self._placed[node])

    def repack_us(self, tensor: Tensor, source: str, node: str) -> float:
        """Time in which a node transforms a tensor that it receives, microseconds.

        Inputs and results of the model are plain everywhere.
        """
        if tensor.producer is None or all(use.consumer is None for use in tensor.uses):
            return 0.0
        costs = self.costs[self.classes[node]]
        us = costs.repack_us.get(self.classes[source], {}).get(tensor.name, 0.0)
        return us * self.routes.statistics.slowdown(node)


def contract(
    atoms: Mapping[str, Sequence[SubgraphId]],
    tensors: Sequence[Tensor],
    weight_bytes: Mapping[SubgraphId, float],
    *,
    model_name: str = "",
    model_hash: str = "",
) -> AtomGraph:
    """Join the sub-graphs of each atom.

    Parameters
    ----------
    atoms
        Sub-graphs by atom, in a valid order of execution.
    tensors
        Tensors between the sub-graphs.
    weight_bytes
        Bytes of the weights by sub-graph.
    model_name, model_hash
        Name and hash of the model.
    """
    home = {id_: atom for atom, held in atoms.items() for id_ in held}
    made: dict[str, int] = dict.fromkeys(atoms, 0)
    read: dict[str | None, int] = dict.fromkeys((*atoms, None), 0)
    joined, names = [], {}
    for tensor in tensors:
        producer = None if tensor.producer is None else home[tensor.producer]
        consumers = [None if u.consumer is None else home[u.consumer] for u in tensor.uses]
        uses = []
        for use, consumer in zip(tensor.uses, consumers, strict=True):
            if consumer is None:
                uses.append(use)
            elif consumer != producer:
                uses.append(TensorUse(consumer=SubgraphId(consumer), input_index=read[consumer]))
                read[consumer] += 1
        if not uses:
            continue
        index = tensor.output_index if producer is None else made[producer]
        if producer is not None:
            made[producer] += 1
        one = replace(
            tensor,
            producer=None if producer is None else SubgraphId(producer),
            output_index=index,
            uses=tuple(uses),
            transform_us={},
            crossing_us={},
            copy_us={},
        )
        names[one.name] = tensor.name
        joined.append(one)
    return AtomGraph(
        atoms={atom: tuple(held) for atom, held in atoms.items()},
        tensors=tuple(joined),
        weight_bytes={
            atom: sum(weight_bytes.get(id_, 0.0) for id_ in held) for atom, held in atoms.items()
        },
        inner_bytes={atom: _inner_bytes(held, tensors) for atom, held in atoms.items()},
        names=names,
        model_name=model_name,
        model_hash=model_hash,
    )


def _inner_bytes(held: Sequence[SubgraphId], tensors: Sequence[Tensor]) -> float:
    """Most bytes of tensors within an atom that live at once, while its sub-graphs run in turn."""
    position = {id_: number for number, id_ in enumerate(held)}
    changes = [0.0] * (len(held) + 1)
    for tensor in tensors:
        if tensor.producer not in position:
            continue
        if any(use.consumer not in position for use in tensor.uses):
            continue  # it leaves the atom, and counts as a tensor between atoms
        changes[position[tensor.producer]] += tensor.bytes
        last = max(position[use.consumer] for use in tensor.uses if use.consumer is not None)
        changes[last + 1] -= tensor.bytes
    most, now = 0.0, 0.0
    for change in changes:
        now += change
        most = max(most, now)
    return most
