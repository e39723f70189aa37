"""Sub-graphs that only generic code can run: TVM's own loops, far slower than a kernel."""

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
"""Share of a network's FLOPs from which on a sub-graph in generic code is announced."""

_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class GenericSubgraph:
    """A sub-graph without a kernel on any unit at hand."""

    share: float
    """Its share of the network's FLOPs."""
    reasons: tuple[Decline, ...]
    """Why there is no kernel, for each legal decision."""

    def __str__(self) -> str:
        first = self.reasons[0]
        return (
            f"{first.subgraph} ({first.operator}, {100 * self.share:.1f} % of the FLOPs; {first.decision}: got "
            f"{first.got}; expected {first.expected})"
        )


def generic_subgraphs(offers: Offers) -> Iterator[GenericSubgraph]:
    """The sub-graphs that only generic code can run, in order of execution."""
    total = max(1, sum(subgraph.flops for subgraph in offers.session.graph.subgraphs))
    for subgraph in offers.session.graph.subgraphs:
        candidates = offers.candidates[subgraph.id]
        if candidates.only_generic:
            yield GenericSubgraph(share=subgraph.flops / total, reasons=candidates.generic)


def offered(session: Session) -> Offers:
    """Ask the units of `session` about every sub-graph, and announce those that only generic code can run."""
    offers = Offers.of(session)
    announce_generic(offers)
    return offers


def announce_generic(offers: Offers) -> None:
    """Warn, in one line, of the sub-graphs in generic code that a network spends a notable part of its work in."""
    found = [generic for generic in generic_subgraphs(offers) if generic.share > NOTABLE]
    if not found:
        return
    found.sort(key=lambda generic: -generic.share)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    named = "; ".join(map(str, found[:_SHOWN]))
    logger.warning("no unit has a kernel for %s%s: generic code may be slow", named, more)
