"""Atoms of a network: the smallest parts that nodes exchange, cut where a cut can pay.

A cut divides the sub-graphs into earlier and later ones; the tensors that cross it are sent. Two
neighbouring parts `first` and `second` need not be separable if every cut between them is dominated
by another cut: one that puts `first` on the later side, or `second` on the earlier side. The other
cut dominates if no more bytes cross it, and if only little work changes sides. The rule:

1. Join parts whose separating cuts are all dominated, as long as no cut is moved by more than
   :data:`~layoutsel.cluster.atom_parts.DRIFT` of the network's work in total.
2. While there are more parts than allowed, or a node that runs them all would lose more than
   :data:`OVERHEAD` of the network's work, join the pair with the least loss for the time that it
   saves. The loss is the share of the network's work that changes sides plus the share of the
   network's bytes that cross in addition. Parallel parts also lose the work that they could do at
   the same time.

A node loses time by entering each part, and by copying the operands of a concatenation that other
parts compute, which are otherwise written in place. Parts stay convex, so that they are stages in a
topological order. Inputs of the model count as equally far from every part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from layoutsel.building.in_place import in_place_parts
from layoutsel.cluster.atom_parts import NetworkParts
from layoutsel.cost.graph import Graph
from layoutsel.cost.tensor import Tensor
from layoutsel.planning.plan import Plan
from tvm_passes.decision import SubgraphId

MOST_ATOMS = 64
"""Default maximum number of atoms."""
LEAST_ATOMS = 8
"""Number of atoms that small networks may have whatever these cost."""
OVERHEAD = 0.02
"""Maximum time that atoms cost a node that runs all of them, as a share of the network's work."""


def cut_atoms(
    work_us: Mapping[SubgraphId, float],
    tensors: Sequence[Tensor],
    *,
    most: int = MOST_ATOMS,
    joins: Mapping[str, SubgraphId] | None = None,
    overhead: float = OVERHEAD,
) -> dict[str, tuple[SubgraphId, ...]]:
    """Divide a network into atoms, which become the stages of its plans.

    Parameters
    ----------
    work_us
        Time of each sub-graph in topological order, microseconds. For several machine classes,
        their mean.
    tensors
        Tensors of the network, of a graph or a planning problem.
    most
        Maximum number of atoms.
    joins
        Concatenations by the tensors that are written into their results in place.
    overhead
        Maximum time that atoms cost, as a share of the work; see :data:`OVERHEAD`.

    Returns
    -------
    dict
        Sub-graphs by atom, in a valid order of stages.
    """
    parts = NetworkParts.single(work_us, tensors, joins or {})
    while pairs := parts.disjoint(parts.dominated()):
        parts = parts.joined(pairs)
    least = min(most, LEAST_ATOMS)
    while len(parts.members) > (most if parts.overhead <= overhead else least):
        pairs = parts.disjoint(parts.by_loss()) or [parts.smallest_neighbours()]
        # Not all of them: joined pairs change the loss of those around them.
        excess = len(parts.members) - least
        parts = parts.joined(pairs[: max(1, min(excess, len(pairs) // 8))])
    ids = list(work_us)
    return {
        f"a{number}": tuple(ids[position] for position in members)
        for number, members in enumerate(parts.members)
    }


def atoms_of(
    graph: Graph, work_us: Mapping[SubgraphId, float], *, most: int = MOST_ATOMS
) -> dict[str, tuple[SubgraphId, ...]]:
    """Divide a network into atoms; parameters and result are those of :func:`cut_atoms`."""
    joins = {f"{id_}.{index}": concat for (id_, index), concat in in_place_parts(graph).items()}
    return cut_atoms(work_us, graph.tensors, most=most, joins=joins)


def plan_in_atoms(plan: Plan, graph: Graph, *, most: int = MOST_ATOMS) -> Plan:
    """Divide a plan into atoms as its stages, by its predicted costs.

    Parameters
    ----------
    plan
        Plan of the whole network.
    graph
        Graph of the network.
    most
        Maximum number of atoms.
    """
    work_us = {subgraph.id: subgraph.cost_us for subgraph in plan.subgraphs}
    return plan.in_stages(atoms_of(graph, work_us, most=most))
