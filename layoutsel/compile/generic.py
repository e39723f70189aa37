"""Sub-graphs with generic code only: TVM's own loops, far slower than kernels."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session

if TYPE_CHECKING:
    from tvm_passes.errors import Decline

logger = logging.getLogger(__name__)

NOTABLE = 0.01
"""Share of the network's FLOPs above which a sub-graph with generic code is announced."""

_SHOWN = 3
"""Maximum number of sub-graphs in a warning."""


@dataclass(frozen=True, kw_only=True)
class GenericSubgraph:
    """A sub-graph without a kernel on any available unit."""

    share: float
    """Share of the network's FLOPs."""
    reasons: tuple[Decline, ...]
    """Reasons for the missing kernel, one for each legal decision."""

    def __str__(self) -> str:
        first = self.reasons[0]
        return (
            f"{first.subgraph} ({first.operator}, {100 * self.share:.1f} % of the FLOPs; "
            f"{first.decision}: got {first.got}; expected {first.expected})"
        )


def generic_subgraphs(offers: Offers) -> Iterator[GenericSubgraph]:
    """Yield the sub-graphs with generic code only, in order of execution."""
    total = max(1, sum(subgraph.flops for subgraph in offers.session.graph.subgraphs))
    for subgraph in offers.session.graph.subgraphs:
        candidates = offers.candidates[subgraph.id]
        if candidates.only_generic:
            yield GenericSubgraph(share=subgraph.flops / total, reasons=candidates.generic)


def offered(session: Session) -> Offers:
    """Collect the candidates of every sub-graph, and announce those with generic code only."""
    offers = Offers.of(session)
    announce_generic(offers)
    return offers


def announce_generic(offers: Offers) -> None:
    """Warn in one line of sub-graphs with generic code that do a notable share of the work."""
    found = [generic for generic in generic_subgraphs(offers) if generic.share > NOTABLE]
    if not found:
        return
    found.sort(key=lambda generic: -generic.share)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    named = "; ".join(map(str, found[:_SHOWN]))
    logger.warning("no unit has a kernel for %s%s: generic code may be slow", named, more)
