"""Prices of a search, kept in its folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from layoutsel.cluster.classes import machine_classes
from layoutsel.compile.options import Options
from layoutsel.search.parts import PartSignature, signatures_of
from layoutsel.search.prices import PriceTable, price_parts
from layoutsel.search.run_folder import RunFolder

COST = "cost"
"""Name of the choice of the source of prices."""


def priced(run: RunFolder) -> PriceTable:
    """Price all parts of a search's space, if that was not done before.

    Raises
    ------
    LayoutselError
        If a part cannot be planned for a class of machines; names the class.
    """
    known = run.prices
    if known is not None:
        return known
    return pricing_of(run)(signatures_of(run.question.space))


def pricing_of(run: RunFolder) -> Callable[[Iterable[PartSignature]], PriceTable]:
    """Function that prices parts on the classes of a search's nodes, and keeps their prices.

    A search that was interrupted must go on with the same prices.
    """
    question = run.question
    classes = machine_classes(question.topology, run.path)
    options = Options(cost=question.choices[COST])

    def price(signatures: Iterable[PartSignature]) -> PriceTable:
        table = price_parts(signatures, classes, options)
        known = run.prices
        run.keep_prices(table if known is None else known.merged(table))
        return table

    return price
