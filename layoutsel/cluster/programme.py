"""Integer programme of placements: sums, limits on several quantities, and memory at every step.

Where the solvers of sums answer for one quantity without limits, this programme holds several: each
is a planning problem with the same candidates and other prices. A tensor is sent from one node to
another once, however many atoms read it there (as in :mod:`~layoutsel.planning.integer`). Rows of
memory are added for the steps at which a placement exceeds it, until none does.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layoutsel.cluster.memory import HeldTensor, held_tensors, live_bytes, request_bytes
from layoutsel.cluster.problem import Cluster, Placement
from layoutsel.cost.place import OUTSIDE, Place
from layoutsel.cost.tensor import KINDS, Tensor
from layoutsel.planning.loads import boundary_resources
from layoutsel.planning.problem import PlanningProblem, ProblemError
from layoutsel.planning.programme import Programme, Term
from layoutsel.planning.resources import Resources

_MOST_ROUNDS = 60
"""Maximum number of times that rows of memory are added."""
_SAME = 1e-6
"""Relative excess over a limit that is due to rounding."""


@dataclass(frozen=True, kw_only=True)
class Limited:
    """Result of the programme."""

    placement: Placement | None
    """Best placement within the limits; None without one in time."""
    bound: float
    """Proven bound on the values of all placements within the limits."""
    is_infeasible: bool = False
    """True if it is proven that no placement keeps the limits."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A quantity with its largest value."""

    problem: PlanningProblem
    """Planning problem whose prices are the quantity."""
    most: float
    """Largest value, in the unit of the prices."""


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
        self._sent = [self._sends(tensor) for tensor in cluster.graph.tensors]
        self._holds: dict[tuple[int, str, tuple[int, ...]], int] = {}

    def _choice(self, count: int) -> list[int]:
        """Add binary variables of which exactly one is 1."""
        first = self.variables([0.0] * count, integral=True)
        found = list(range(first, first + count))
        self.row([(variable, 1.0) for variable in found], 1.0, 1.0)
        return found

    def _sends(self, tensor: Tensor) -> dict[tuple[str, str], int]:
        """Add a variable for each pair of nodes: 1 if the tensor is sent from one to the other."""
        origin = self.cluster.topology.origin
        sources = {origin: None} if tensor.producer is None else self._on[tensor.producer]
        consumers = list(dict.fromkeys(use.consumer for use in tensor.uses))
        found: dict[tuple[str, str], int] = {}
        for consumer in consumers:
            wanted = {origin: None} if consumer is None else self._on[consumer]
            pairs = list(itertools.product(sources, wanted))
            first = self.variables([0.0] * len(pairs))
            flow = dict(zip(pairs, range(first, first + len(pairs)), strict=True))
            for source, made in sources.items():
                self._tied([flow[source, node] for node in wanted], made)
            for node, taken in wanted.items():
                self._tied([flow[source, node] for source in sources], taken)
            if len(consumers) == 1:
                return {pair: one for pair, one in flow.items() if pair[0] != pair[1]}
            for pair, one in flow.items():
                if pair[0] != pair[1]:
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


def least_sum(
    cluster: Cluster,
    problem: PlanningProblem,
    limits: Sequence[Limit] = (),
    *,
    most_load_us: float | None = None,
    is_bottleneck: bool = False,
    time_limit_s: float = 10.0,
    gap: float = 0.0,
) -> Limited:
    """Find the placement with the least sum of prices within limits and the nodes' memories.

    Parameters
    ----------
    cluster
        Nodes and network.
    problem
        Planning problem of the cluster, with the prices to minimise.
    limits
        Limits on other sums.
    most_load_us
        Longest time for which a request may occupy a resource, microseconds; None for any.
    is_bottleneck
        True to minimise the longest time for which a request occupies a resource instead.
    time_limit_s
        Time limit, seconds.
    gap
        Relative gap at which to stop.
    """
    programme = Placements(cluster)
    prices = programme.terms(problem)
    scale = max(max((price for _, price in prices), default=0.0), 1e-12)
    bottleneck = programme.variables([1.0 if is_bottleneck else 0.0], most=np.inf)
    if not is_bottleneck:
        programme.price([(variable, price / scale) for variable, price in prices])
    for terms in programme.loads().values() if is_bottleneck or most_load_us is not None else ():
        scaled = [(variable, us / scale) for variable, us in terms]
        programme.row([*scaled, (bottleneck, -1.0)], -np.inf, 0.0)
    if most_load_us is not None:
        programme.row([(bottleneck, 1.0)], -np.inf, most_load_us / scale)
    for limit in limits:
        most = max(limit.most, 1e-12)
        terms = [(variable, price / most) for variable, price in programme.terms(limit.problem)]
        programme.row(terms, -np.inf, limit.most / most)
    found = _with_memory(programme, time_limit_s, gap)
    return Limited(
        placement=found.placement,
        bound=found.bound * scale,
        is_infeasible=found.is_infeasible,
    )


def least_peak(cluster: Cluster, *, time_limit_s: float = 10.0, gap: float = 0.005) -> Limited:
    """Find the placement with the least peak memory of any node, within their memories.

    Parameters
    ----------
    cluster
        Nodes and network.
    time_limit_s
        Time limit, seconds.
    gap
        Relative gap at which to stop.
    """
    programme = Placements(cluster)
    scale = max(sum(cluster.graph.weight_bytes.values()) + request_bytes(cluster.graph), 1.0)
    peak = programme.variables([1.0], most=np.inf)
    found = _with_memory(programme, time_limit_s, gap, peak=(peak, scale))
    bound = max(found.bound * scale, _simple_bound(cluster))
    return Limited(placement=found.placement, bound=bound, is_infeasible=found.is_infeasible)


def _simple_bound(cluster: Cluster) -> float:
    """Bound on the largest peak: the mean of all weights, and the needs of each atom alone."""
    graph = cluster.graph
    needs = [sum(graph.weight_bytes.values()) / len(cluster.nodes), request_bytes(graph)]
    for atom in graph.atoms:
        at_hand = sum(
            tensor.bytes
            for tensor in graph.tensors
            if tensor.producer == atom or any(use.consumer == atom for use in tensor.uses)
        )
        own = graph.weight_bytes.get(atom, 0.0) + graph.inner_bytes.get(atom, 0.0)
        needs.append(own + at_hand)
    return float(max(needs))


def _with_memory(
    programme: Placements, time_limit_s: float, gap: float, peak: Term | None = None
) -> Limited:
    """Minimise, and add the rows of memory that the placement violates, until there are none.

    Parameters
    ----------
    programme
        Programme without rows of memory.
    time_limit_s, gap
        Limits of the solver.
    peak
        Variable of the peak memory, which no node exceeds, and its unit in bytes.
    """
    cluster, deadline = programme.cluster, time.monotonic() + time_limit_s
    added: set[tuple[str, int]] = set()
    bound, best = -np.inf, None
    for _ in range(_MOST_ROUNDS):
        left_s = max(deadline - time.monotonic(), 0.05)
        result = programme.minimised(time_limit_s=left_s, gap=gap)
        if result.mip_dual_bound is not None:
            bound = max(bound, float(result.mip_dual_bound))
        if result.x is None:
            return Limited(placement=None, bound=bound, is_infeasible=result.status == 2)
        best = programme.placement(result.x)
        value = float(result.x[peak[0]]) * peak[1] if peak is not None else np.inf
        broken = [
            (node, step)
            for node, step, size in _steps(cluster, best)
            if size > _most(cluster, node, value) * (1 + _SAME) and (node, step) not in added
        ]
        if not broken or time.monotonic() > deadline:
            break
        for node, step in broken:
            added.add((node, step))
            _limit_step(programme, node, step, peak)
    return Limited(placement=best, bound=bound)


def _most(cluster: Cluster, node: str, value: float) -> float:
    capacity = cluster.capacity(node)
    return value if capacity is None else min(capacity, value)


def _steps(cluster: Cluster, placement: Placement) -> list[tuple[str, int, float]]:
    """List the step at which each node holds most, with the bytes."""
    found = []
    for node, live in live_bytes(cluster.graph, placement).items():
        held = sum(
            cluster.graph.weight_bytes.get(atom, 0.0)
            for atom, where in placement.items()
            if where == node
        )
        if node == cluster.topology.origin:
            held += request_bytes(cluster.graph)
        step = int(np.argmax(live))
        found.append((node, step, held + live[step]))
    return found


def _limit_step(programme: Placements, node: str, step: int, peak: Term | None) -> None:
    """Add the rows that a node's memory suffices at a step, and that the peak is no less."""
    own = programme.own_bytes(node)
    terms = programme.live(node, step)
    capacity = programme.cluster.capacity(node)
    if capacity is not None:
        scaled = [(variable, size / capacity) for variable, size in terms]
        programme.row(scaled, -np.inf, 1.0 - own / capacity)
    if peak is not None:
        variable, unit = peak
        scaled = [(one, size / unit) for one, size in terms]
        programme.row([*scaled, (variable, -1.0)], -np.inf, -own / unit)


def missing(cluster: Cluster, *, time_limit_s: float = 10.0) -> str:
    """Describe the least lack of memory if no placement fits.

    Parameters
    ----------
    cluster
        Nodes and network.
    time_limit_s
        Time limit, seconds.

    Raises
    ------
    ProblemError
        If a placement fits after all.
    """
    programme = Placements(cluster)
    lacks = {node: programme.variables([1.0], most=np.inf) for node in cluster.nodes}
    unit = max(sum(cluster.graph.weight_bytes.values()) + request_bytes(cluster.graph), 1.0)
    for node, lack in lacks.items():
        capacity = cluster.capacity(node)
        if capacity is None:
            continue
        for step in range(len(cluster.graph.atoms)):
            terms = [(one, size / unit) for one, size in programme.live(node, step)]
            own = programme.own_bytes(node)
            programme.row([*terms, (lack, -1.0)], -np.inf, (capacity - own) / unit)
    result = programme.minimised(time_limit_s=time_limit_s, gap=0.01)
    if result.x is None:
        return "no placement fits the nodes' memories"
    found = {node: float(result.x[lack]) * unit for node, lack in lacks.items()}
    short = {node: size for node, size in found.items() if size > _SAME * unit}
    if not short:
        raise ProblemError("a placement fits the nodes' memories")
    placement = programme.placement(result.x)
    return "; ".join(_missing_on(cluster, placement, node, size) for node, size in short.items())


def _missing_on(cluster: Cluster, placement: Mapping[str, str], node: str, size: float) -> str:
    """Describe the lack of one node, with its largest atom."""
    here = [atom for atom, where in placement.items() if where == node]
    weights = cluster.graph.weight_bytes
    largest = max(here, key=lambda atom: weights.get(atom, 0.0), default=None)
    named = ""
    if largest is not None:
        held = cluster.graph.atoms[largest]
        more = f" and {len(held) - 1} more" if len(held) > 1 else ""
        named = (
            f" (its largest part is {held[0]}{more}, with {megabytes(weights.get(largest, 0.0))} "
            f"of weights)"
        )
    capacity = cluster.capacity(node) or 0.0
    return f"{megabytes(size)} missing on {node}, which has {megabytes(capacity)}{named}"


def megabytes(size: float) -> str:
    """Size in megabytes, to three digits."""
    return f"{size / 1e6:.3g} MB"
