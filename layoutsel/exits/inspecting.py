"""Stages of a network and their work, before any plan."""

from __future__ import annotations

from dataclasses import dataclass

from layoutsel.compile.session import Session
from layoutsel.cost.graph import Graph
from layoutsel.exits.dividing import divide
from layoutsel.exits.division import ExitDivision
from layoutsel.exits.network import ExitNetwork
from layoutsel.planning.stages import uses_of
from tvm_passes.decision import SubgraphId
from tvm_passes.limits import ImportLimits


@dataclass(frozen=True, kw_only=True, eq=False)
class Inspection:
    """A network, its sub-graphs, and their division."""

    network: ExitNetwork
    """Network with E exits."""
    graph: Graph
    """Sub-graphs of its scored model."""
    division: ExitDivision
    """Trunk and branches."""

    def flops(self, subgraphs: tuple[SubgraphId, ...]) -> int:
        """Arithmetic operations of sub-graphs."""
        return sum(self.graph.by_id[id_].flops for id_ in subgraphs)

    def flops_until(self, exit_: int) -> int:
        """Arithmetic operations until an exit answers, without exits that it does not read."""
        division = self.division
        stages = list(division.trunk[: exit_ + 1])
        if exit_ < len(division.branches):
            stages += (division.branches[i] for i in (exit_, *division.needed_by(exit_)))
        return sum(map(self.flops, stages))

    @property
    def remarks(self) -> tuple[str, ...]:
        """Properties of the exits that the user may not intend."""
        exits, flops = self.network.spec.exits, self.network.flops
        found = []
        if self.network.is_guessed:
            found.append(
                "no specification: the exits are the outputs (1, classes) in the order of their "
                "work. Write one with -o FILE, correct it, and pass it with --spec FILE"
            )
        if self.network.unused:
            found.append(f"outputs of no exit, not computed: {', '.join(self.network.unused)}")
        found += (
            f"{late.name!r} follows {early.name!r} but takes less work: "
            f"{less / 1e6:,.2f} after {more / 1e6:,.2f} MFLOP. Exits are asked in this order"
            for early, late, more, less in zip(exits, exits[1:], flops, flops[1:], strict=False)
            if less < more
        )
        return tuple(found)


def inspect(network: ExitNetwork, *, limits: ImportLimits | None = None) -> Inspection:
    """Divide the sub-graphs of a network into trunk and branches.

    Parameters
    ----------
    network
        Network to divide.
    limits
        Limits of the import.
    """
    graph = Session.open(network.scored(), limits=limits or ImportLimits()).graph
    reads, results = uses_of(graph.ids, graph.tensors)
    division = divide(reads, results, len(network.names))
    return Inspection(network=network, graph=graph, division=division)
