"""Division of a network into its trunk, cut at the taps, and one branch for each exit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tvm_passes.decision import SubgraphId


@dataclass(frozen=True, kw_only=True)
class ExitDivision:
    """Stages of a multi-exit network with E exits, the final one included.

    Segment i of the trunk ends where branch i can begin; the last one ends with the final exit.
    """

    trunk: tuple[tuple[SubgraphId, ...], ...]
    """Sub-graphs of the E trunk segments, in order of execution; a segment may be empty."""
    branches: tuple[tuple[SubgraphId, ...], ...]
    """Sub-graphs of the E - 1 branches, in order of execution."""
    needs: tuple[tuple[int, ...], ...]
    """Earlier branches of which each branch reads a tensor."""

    def needed_by(self, exit_: int) -> frozenset[int]:
        """Return the branches that must run before branch `exit_`, directly or for others."""
        direct = self.needs[exit_]
        return frozenset(direct).union(*map(self.needed_by, direct))

    def stages(self) -> Mapping[str, tuple[SubgraphId, ...]]:
        """Sub-graphs by stage: ``trunk0``, ``branch0``, ``trunk1``, …; empty ones are left out."""
        found: dict[str, tuple[SubgraphId, ...]] = {}
        for index, segment in enumerate(self.trunk):
            found[f"trunk{index}"] = segment
            if index < len(self.branches):
                found[f"branch{index}"] = self.branches[index]
        return {name: subgraphs for name, subgraphs in found.items() if subgraphs}
