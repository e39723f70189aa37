"""Division of a network's sub-graphs into its trunk, cut at the taps, and the exits' branches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

from layoutsel.exits.division import ExitDivision
from layoutsel.exits.scores import RESULTS
from layoutsel.planning.stages import Reads, producer_of
from tvm_passes.decision import SubgraphId
from tvm_passes.errors import IllegalDecision


def divide(reads: Reads, results: Sequence[str], exits: int) -> ExitDivision:
    """Divide the sub-graphs of a scored model.

    The trunk is everything that the final exit needs. A branch is everything else that its exit
    needs and no earlier exit does. A segment of the trunk is everything that a branch needs of the
    trunk and no earlier branch does.

    Parameters
    ----------
    reads
        Tensors that each sub-graph reads, in an order of execution, such as ``plan.reads``.
    results
        Tensors that the model returns, such as ``plan.results``: those of each exit in turn, as in
        :meth:`layoutsel.exits.network.ExitNetwork.scored`; later ones are ignored.
    exits
        Number of exits, the final one included.

    Raises
    ------
    IllegalDecision
        If there are too few results.
    """
    if len(results) < RESULTS * exits:
        raise IllegalDecision(
            f"the model returns {len(results)} tensors: expected {RESULTS} for each of {exits} "
            "exits; plan the scored model of the network"
        )
    makers = [
        [producer_of(result) for result in results[RESULTS * i : RESULTS * (i + 1)]]
        for i in range(exits)
    ]
    trunk = needed_by(makers[-1], reads)
    taken: set[SubgraphId] = set()
    segments: list[tuple[SubgraphId, ...]] = []
    branches: list[tuple[SubgraphId, ...]] = []
    needs: list[tuple[int, ...]] = []
    for own in makers[:-1]:
        needed = needed_by(own, reads)
        branch = needed - trunk - taken
        read = {producer_of(tensor) for id_ in branch for tensor in reads[id_]}.union(own)
        needs.append(tuple(i for i, earlier in enumerate(branches) if read.intersection(earlier)))
        segments.append(_in_order(needed & trunk - taken, reads))
        branches.append(_in_order(branch, reads))
        taken |= needed
    return ExitDivision(
        trunk=(*segments, _in_order(trunk - taken, reads)),
        branches=tuple(branches),
        needs=tuple(needs),
    )


def needed_by(ids: Iterable[SubgraphId], reads: Reads) -> Set[SubgraphId]:
    """Return the sub-graphs among `ids` and all that they need; inputs of the model are none."""
    found: set[SubgraphId] = set()
    waiting = list(ids)
    while waiting:
        id_ = waiting.pop()
        if id_ in reads and id_ not in found:
            found.add(id_)
            waiting += (producer_of(tensor) for tensor in reads[id_])
    return found


def _in_order(ids: Set[SubgraphId], reads: Reads) -> tuple[SubgraphId, ...]:
    return tuple(id_ for id_ in reads if id_ in ids)
