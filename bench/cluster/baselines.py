"""Ways to divide a network that planners are compared with: each makes a mix of placements.

They know what planners know: times of the atoms, sizes of the tensors, links and memories.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import linprog

from layoutsel.cluster.memory import excess, peaks
from layoutsel.cluster.metrics import METRICS, THROUGHPUT, Mix, Predictor, Share, alone
from layoutsel.cluster.problem import Cluster, Placement

MOST_STATES = 20_000
"""Maximum number of counts of machines that the pipelines of PipeEdge's kind are searched over."""
FAST_LINK = 0.25
"""Share of the fastest link's rate from which two nodes belong to one region."""
STEPS = 20
"""Halvings of the interval of the least bottleneck."""


def throughput(predictor: Predictor, mix: Mix) -> float:
    """Predicted throughput, requests per second."""
    return METRICS[THROUGHPUT].value(predictor, mix)


def fits(predictor: Predictor, mix: Mix) -> bool:
    """Whether weights and tensors fit the memories."""
    held = peaks(predictor.cluster, [share.placement for share in mix])
    return not any(True for _ in excess(predictor.cluster, held))


def best(predictor: Predictor, mixes: Iterator[Mix]) -> Mix | None:
    """The mix with the highest throughput of those that fit; None if none fits."""
    fitting = [mix for mix in mixes if fits(predictor, mix)]
    return max(fitting, key=lambda mix: throughput(predictor, mix), default=None)


def on_one(cluster: Cluster, node: str) -> Placement:
    """All atoms on one node."""
    return dict.fromkeys(cluster.graph.atoms, node)


def contiguous(cluster: Cluster, ends: Sequence[int], nodes: Sequence[str]) -> Placement:
    """Atoms in order: those before the first of `ends` on the first node, and so on."""
    atoms = list(cluster.graph.atoms)
    starts = [0, *ends[:-1]]
    return {
        atom: node
        for node, start, end in zip(nodes, starts, ends, strict=True)
        for atom in atoms[start:end]
    }


def single(predictor: Predictor) -> Mix | None:
    """The best single node."""
    cluster = predictor.cluster
    return best(predictor, (alone(on_one(cluster, node)) for node in cluster.nodes))


def replication(predictor: Predictor) -> Mix | None:
    """The whole network on every node that it fits, with the best shares of the requests."""
    cluster = predictor.cluster
    placements = [
        on_one(cluster, node)
        for node in cluster.nodes
        if fits(predictor, alone(on_one(cluster, node)))
    ]
    if not placements:
        return None
    loads = [predictor.loads_us(alone(placement)) for placement in placements]
    names = sorted({name for load in loads for name in load})
    matrix = np.array([[load.get(name, 0.0) for load in loads] for name in names])
    scale = float(matrix.max())
    rates = linprog(
        -np.ones(len(loads)), A_ub=matrix / scale, b_ub=np.ones(len(names)), method="highs"
    ).x
    total = float(rates.sum())
    return tuple(
        Share(weight=float(rate) / total, placement=placement)
        for rate, placement in zip(rates, placements, strict=True)
        if rate > 1e-9 * total
    )


def equal_split(predictor: Predictor) -> Mix | None:
    """As many atoms on each node as on any other, the nodes in the topology's order."""
    cluster = predictor.cluster
    count = len(cluster.graph.atoms)
    nodes = cluster.nodes[:count]
    ends = [round(count * (number + 1) / len(nodes)) for number in range(len(nodes))]
    mix = alone(contiguous(cluster, ends, nodes))
    return mix if fits(predictor, mix) else None


def one_cut(predictor: Predictor) -> Mix | None:
    """Neurosurgeon's: the origin runs the first atoms, one other node the rest; the best of all."""
    cluster = predictor.cluster
    count = len(cluster.graph.atoms)
    origin = cluster.topology.origin
    return best(
        predictor,
        (
            alone(contiguous(cluster, (cut, count), (origin, node)))
            for node in cluster.nodes
            if node != origin
            for cut in range(count + 1)
        ),
    )


def greedy(predictor: Predictor) -> Mix | None:
    """Each atom in order on the node that then has the lowest busiest resource, so far."""
    cluster = predictor.cluster
    origin = cluster.topology.origin
    readers = {
        atom: [t for t in cluster.graph.tensors if any(u.consumer == atom for u in t.uses)]
        for atom in cluster.graph.atoms
    }
    busy: dict[str, float] = {}
    held = dict.fromkeys(cluster.nodes, 0.0)
    placement: dict[str, str] = {}
    sent: set[tuple[str, str]] = set()

    def added(atom: str, node: str) -> dict[str, float]:
        found = {cluster.routes.processor(node): cluster.option(atom, node).cost_us}
        for tensor in readers[atom]:
            source = origin if tensor.producer is None else placement[tensor.producer]
            if source != node and (tensor.name, node) not in sent:
                for step in cluster.routes.route(source, node).resources(tensor.bytes):
                    for name, us in step.busy_us.items():
                        found[name] = found.get(name, 0.0) + us
        return found

    for atom in cluster.graph.atoms:
        size = cluster.graph.weight_bytes.get(atom, 0.0)
        roomy = [n for n in cluster.nodes if held[n] + size <= (cluster.capacity(n) or np.inf)]
        if not roomy:
            return None

        def busiest(node: str, atom: str = atom) -> float:
            more = added(atom, node)
            return max(
                max(busy.values(), default=0.0), *(busy.get(n, 0.0) + us for n, us in more.items())
            )

        node = min(roomy, key=lambda one: (busiest(one), sum(added(atom, one).values())))
        for name, us in added(atom, node).items():
            busy[name] = busy.get(name, 0.0) + us
        sent.update((tensor.name, node) for tensor in readers[atom])
        placement[atom] = node
        held[node] += size
    return alone(placement) if fits(predictor, alone(placement)) else None


def pipeline(predictor: Predictor) -> Mix | None:
    """PipeEdge's: contiguous stages on machines in any order, with the least bottleneck.

    Machines of one class and region count as equal. The states are counts of them; where those
    would be too many, the fastest machines take part alone. Each state keeps the farthest atom
    that stages within a bottleneck reach, so that memory and wide cuts make it a heuristic.
    """
    cluster = predictor.cluster
    groups = _groups(cluster)
    found = _Pipelines(cluster, groups)
    low, high = 0.0, float(found.sums[0, -1])
    chosen = None
    for _ in range(STEPS):
        middle = (low + high) / 2
        placement = found.within(middle)
        if placement is None:
            low = middle
        else:
            high, chosen = middle, placement
    mix = None if chosen is None else alone(chosen)
    return mix if mix is not None and fits(predictor, mix) else None


def _groups(cluster: Cluster) -> list[list[str]]:
    """Nodes by machine class and region, the fastest first, as many as the states allow."""
    region = _regions(cluster)
    total = {
        n: sum(cluster.option(a, n).cost_us for a in cluster.graph.atoms) for n in cluster.nodes
    }
    groups: dict[tuple[str, str], list[str]] = {}
    for node in sorted(cluster.nodes, key=lambda one: total[one]):
        key = cluster.classes[node], region[node]
        counts = [len(held) + (name == key) for name, held in groups.items()]
        counts += [1] if key not in groups else []
        if np.prod([count + 1 for count in counts]) * len(counts) <= MOST_STATES:
            groups.setdefault(key, []).append(node)
    return list(groups.values())


def _regions(cluster: Cluster) -> dict[str, str]:
    """A representative of the nodes that fast links join."""
    fastest = max((link.gbps for link in cluster.topology.links), default=0.0)
    region = {vertex.id: vertex.id for vertex in cluster.topology.nodes}
    for link in cluster.topology.links:
        if link.gbps >= FAST_LINK * fastest:
            old, new = region[link.source], region[link.target]
            region = {vertex: new if name == old else name for vertex, name in region.items()}
    return region


@dataclass(frozen=True)
class _Pipelines:
    """Pipelines over groups of equal machines."""

    cluster: Cluster
    groups: Sequence[Sequence[str]]

    @cached_property
    def sums(self) -> np.ndarray:
        """Time of the first atoms on each group, (groups, atoms + 1)."""
        return np.array(
            [
                [
                    0.0,
                    *itertools.accumulate(
                        self.cluster.option(a, g[0]).cost_us for a in self.cluster.graph.atoms
                    ),
                ]
                for g in self.groups
            ]
        )

    @cached_property
    def cut_bytes(self) -> np.ndarray:
        """Bytes that cross each boundary between atoms, (atoms + 1,)."""
        position: Mapping[str | None, int] = {a: n for n, a in enumerate(self.cluster.graph.atoms)}
        found = np.zeros(len(position) + 1)
        for tensor in self.cluster.graph.tensors:
            start = 0 if tensor.producer is None else position[tensor.producer] + 1
            last = max(
                len(position) if u.consumer is None else position[u.consumer] for u in tensor.uses
            )
            found[start : last + 1] += tensor.bytes
        return found

    @cached_property
    def byte_us(self) -> np.ndarray:
        """Time of a byte on the slowest link from one group to another, (groups, groups)."""
        count = len(self.groups)
        found = np.zeros((count, count))
        for source, destination in itertools.product(range(count), repeat=2):
            ends = self.groups[source][0], self.groups[destination][-1]
            if ends[0] != ends[1]:
                steps = self.cluster.routes.route(*ends).resources(1_000_000)
                found[source, destination] = max(max(s.busy_us.values()) for s in steps) / 1e6
        return found

    def within(self, most_us: float) -> Placement | None:
        """A pipeline whose stages and messages take `most_us` at most; None if none was found."""
        atoms = self.sums.shape[1] - 1
        shape = [len(group) + 1 for group in self.groups]
        # Farthest atom from each atom in one stage, (groups, atoms + 1).
        reach = np.array(
            [
                np.searchsorted(sums, sums + most_us * (1 + 1e-12), side="right") - 1
                for sums in self.sums
            ]
        )
        narrow = self.byte_us[:, :, None] * self.cut_bytes <= most_us
        narrow[:, :, 0] = True
        far = np.full((len(shape), *shape), -1)
        origin = (0,) * len(shape)
        for group in range(len(shape)):
            far[(group, *self._plus(origin, group))] = reach[group, 0]
        for counts in sorted(itertools.product(*map(range, shape)), key=sum):
            for last, end in enumerate(far[(slice(None), *counts)]):
                if end >= atoms:
                    return self._placement(far, reach, narrow, last, counts)
                if end <= 0:
                    continue
                for group, held in enumerate(counts):
                    if held + 1 < shape[group] and narrow[last, group, end]:
                        state = (group, *self._plus(counts, group))
                        far[state] = max(far[state], reach[group, end])
        return None

    def _placement(
        self,
        far: np.ndarray,
        reach: np.ndarray,
        narrow: np.ndarray,
        group: int,
        counts: tuple[int, ...],
    ) -> Placement:
        """Walk back from the state that reaches the last atom."""
        ends, order = [reach.shape[1] - 1], [group]
        while sum(counts) > 1:
            counts = self._plus(counts, group, -1)
            reached = ends[-1]
            for last in range(len(counts)):
                end = int(far[(last, *counts)])
                if end > 0 and narrow[last, group, end] and reach[group, end] >= reached:
                    break
            ends.append(end)
            order.append(last)
            group = last
        free = [iter(nodes) for nodes in self.groups]
        nodes = [next(free[one]) for one in reversed(order)]
        return contiguous(self.cluster, ends[::-1], nodes)

    @staticmethod
    def _plus(counts: tuple[int, ...], group: int, more: int = 1) -> tuple[int, ...]:
        return (*counts[:group], counts[group] + more, *counts[group + 1 :])


BASELINES: Mapping[str, Callable[[Predictor], Mix | None]] = {
    "single node": single,
    "replication": replication,
    "equal split": equal_split,
    "one cut": one_cut,
    "greedy": greedy,
    "pipeline": pipeline,
}
"""Baselines by name; None where one does not fit."""
