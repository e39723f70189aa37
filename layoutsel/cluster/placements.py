"""Variables and rows of integer programmes over placements: prices, loads, latency and memory.

A tensor is sent from one node to another once, however many atoms read it there (as in
:mod:`~layoutsel.planning.integer`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from layoutsel.cluster.memory import HeldTensor, held_tensors, request_bytes
from layoutsel.cluster.problem import Cluster
from layoutsel.cost.place import OUTSIDE, Place
from layoutsel.cost.tensor import KINDS, Tensor
from layoutsel.planning.loads import boundary_resources
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.programme import Programme, Term
from layoutsel.planning.resources import Resources
from tvm_passes.decision import SubgraphId

_Flow = dict[tuple[str, str], int]
"""Variables by (source, destination), two different nodes."""


class Placements(Programme):
    """Programme over the placements of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self.cluster = cluster
        self._atoms = list(cluster.graph.atoms)
        self._on = {
            atom: dict(zip(cluster.nodes, self._choice(len(cluster.nodes)), strict=True))
            for atom in self._atoms
        }
        self._held = held_tensors(cluster.graph)
        self._flows = [self._flow(tensor) for tensor in cluster.graph.tensors]
        self._sent = [self._sends(list(flows.values())) for flows in self._flows]
        self._holds: dict[tuple[int, str, tuple[int, ...]], int] = {}

    def _choice(self, count: int) -> list[int]:
        """Add binary variables of which exactly one is 1."""
        first = self.variables([0.0] * count, integral=True)
        found = list(range(first, first + count))
        self.row([(variable, 1.0) for variable in found], 1.0, 1.0)
        return found

    def _flow(self, tensor: Tensor) -> dict[SubgraphId | None, _Flow]:
        """Add variables for each consumer: 1 for the nodes of the tensor's producer and its own."""
        origin = self.cluster.topology.origin
        sources = {origin: None} if tensor.producer is None else self._on[tensor.producer]
        found: dict[SubgraphId | None, _Flow] = {}
        for consumer in dict.fromkeys(use.consumer for use in tensor.uses):
            wanted = {origin: None} if consumer is None else self._on[consumer]
            pairs = list(itertools.product(sources, wanted))
            first = self.variables([0.0] * len(pairs))
            flow = dict(zip(pairs, range(first, first + len(pairs)), strict=True))
            for source, made in sources.items():
                self._tied([flow[source, node] for node in wanted], made)
            for node, taken in wanted.items():
                self._tied([flow[source, node] for source in sources], taken)
            found[consumer] = {pair: one for pair, one in flow.items() if pair[0] != pair[1]}
        return found

    def _sends(self, flows: Sequence[_Flow]) -> _Flow:
        """Add a variable for each pair of nodes: 1 if the tensor is sent from one to the other."""
        if len(flows) == 1:
            return flows[0]
        found: _Flow = {}
        for flow in flows:
            for pair, one in flow.items():
                if pair not in found:
                    found[pair] = self.variables([0.0])
                self.row([(found[pair], 1.0), (one, -1.0)], 0.0, np.inf)
        return found

    def _tied(self, flows: Sequence[int], chosen: int | None) -> None:
        """Add the row that flows add up to a variable; to 1 without one."""
        terms: list[Term] = [(flow, 1.0) for flow in flows]
        if chosen is None:
            self.row(terms, 1.0, 1.0)
        else:
            self.row([*terms, (chosen, -1.0)], 0.0, 0.0)

    def terms(self, problem: PlanningProblem) -> list[Term]:
        """List the terms of the sum of prices of `problem`."""
        found: list[Term] = []
        for node in problem.nodes:
            on = self._on[node.id]
            found += [(on[self.cluster.node_of(o.decision)], o.cost_us) for o in node.options]
        for tensor, sent in zip(problem.tensors, self._sent, strict=True):
            found += [
                (variable, self._sending(tensor, problem, *pair)) for pair, variable in sent.items()
            ]
        return [(variable, price) for variable, price in found if price]

    def loads(self) -> dict[str, list[Term]]:
        """List the terms of the time for which a request occupies each resource."""
        problem = self.cluster.problem
        found: dict[str, list[Term]] = {}

        def occupied(variable: int, work: Resources) -> None:
            for name, us in work.busy_us.items():
                if us:
                    found.setdefault(name, []).append((variable, us))

        for node in problem.nodes:
            for o in node.options:
                variable = self._on[node.id][self.cluster.node_of(o.decision)]
                work = problem.resources.compute(o.decision.unit, o.memory, o.cost_us)
                occupied(variable, work)
        for tensor, sent in zip(problem.tensors, self._sent, strict=True):
            for pair, variable in sent.items():
                for kind in KINDS:
                    places = self._ends(tensor, problem, *pair)
                    occupied(variable, boundary_resources(problem, tensor, kind, *places))
        return found

    def bottleneck(self, unit_us: float, *, cost: float) -> None:
        """Add the longest time for which a request occupies a resource, with its cost per unit."""
        longest = self.variables([cost], most=np.inf)
        for terms in self.loads().values():
            scaled = [(variable, us / unit_us) for variable, us in terms]
            self.row([*scaled, (longest, -1.0)], -np.inf, 0.0)

    def limit_loads(self, most_us: float) -> None:
        """Limit the time for which a request occupies each resource."""
        for terms in self.loads().values():
            self.row([(variable, us / most_us) for variable, us in terms], -np.inf, 1.0)

    def limit_sum(self, problem: PlanningProblem, most: float) -> None:
        """Limit the sum of prices of `problem`."""
        most = max(most, 1e-12)
        self.row([(v, price / most) for v, price in self.terms(problem)], -np.inf, 1.0)

    def limit_latency(self, most_us: float) -> None:
        """Limit the time of every path through the network, and of every resource.

        These rows hold for all placements whose latency is within the limit, and for some others.
        """
        self.limit_loads(most_us)
        problem = self.cluster.problem
        starts = {atom: self.variables([0.0]) for atom in self._atoms}
        lasting = {
            node.id: [
                (self._on[node.id][self.cluster.node_of(o.decision)], o.cost_us / most_us)
                for o in node.options
            ]
            for node in problem.nodes
        }
        for tensor, flows in zip(problem.tensors, self._flows, strict=True):
            before = [] if tensor.producer is None else lasting[tensor.producer]
            made = [] if tensor.producer is None else [(starts[tensor.producer], 1.0)]
            for consumer, flow in flows.items():
                sent = [
                    (variable, self._sending(tensor, problem, *pair) / most_us)
                    for pair, variable in flow.items()
                ]
                then = [] if consumer is None else [(starts[consumer], -1.0)]
                self.row([*made, *before, *sent, *then], -np.inf, 0.0 if then else 1.0)

    def relax(self) -> None:
        """Let atoms be divided: each node runs a share of the requests."""
        self.integral = [0] * len(self.integral)

    def _sending(
        self, tensor: Tensor, problem: PlanningProblem, source: str, destination: str
    ) -> float:
        """Price of a tensor that is sent from one node to another, with its transform."""
        made, wanted = self._ends(tensor, problem, source, destination)
        return sum(tensor.price(kind, made, wanted) for kind in KINDS)

    def _ends(
        self, tensor: Tensor, problem: PlanningProblem, source: str, destination: str
    ) -> tuple[Place, Place]:
        """Places of a tensor on the node that sends it, and on the one that receives it."""
        made, wanted = OUTSIDE, OUTSIDE
        if tensor.producer is not None:
            options = problem.by_id[tensor.producer].options
            made = next(
                o.made[tensor.output_index]
                for o in options
                if self.cluster.node_of(o.decision) == source
            )
        for use in tensor.uses:
            if use.consumer is not None:
                wanted = next(
                    o.wanted[use.input_index]
                    for o in problem.by_id[use.consumer].options
                    if self.cluster.node_of(o.decision) == destination
                )
        return made, wanted

    def live(self, node: str, step: int) -> list[Term]:
        """List the terms of the memory of a node at a step: weights and live tensors."""
        graph = self.cluster.graph
        found = [(self._on[atom][node], graph.weight_bytes.get(atom, 0.0)) for atom in self._atoms]
        atom = self._atoms[step]
        found.append((self._on[atom][node], graph.inner_bytes.get(atom, 0.0)))
        for number, tensor in enumerate(self._held):
            holders = tensor.holders(step)
            if holders and tensor.bytes:
                found.append((self._holding(number, tensor, node, holders), tensor.bytes))
        return [(variable, size) for variable, size in found if size]

    def _holding(self, number: int, tensor: HeldTensor, node: str, holders: tuple[int, ...]) -> int:
        """Return the variable that is 1 if any of `holders` is on a node."""
        here = [self._on[self._atoms[position]][node] for position in holders if position >= 0]
        if len(here) == 1:
            return here[0]
        key = number, node, holders
        if key not in self._holds:
            variable = self._holds[key] = self.variables([0.0])
            for one in here:
                self.row([(variable, 1.0), (one, -1.0)], 0.0, np.inf)
        return self._holds[key]

    def placement(self, values: np.ndarray) -> dict[str, str]:
        """Read the node of each atom from the values of all variables."""
        return {
            atom: max(on.items(), key=lambda one: float(values[one[1]]))[0]
            for atom, on in self._on.items()
        }

    def own_bytes(self, node: str) -> float:
        """Bytes that a node holds for each request in any placement."""
        is_origin = node == self.cluster.topology.origin
        return request_bytes(self.cluster.graph) if is_origin else 0.0

    def price(self, terms: Sequence[Term]) -> None:
        """Make a sum the objective."""
        for variable, price in terms:
            self.objective[variable] += price
