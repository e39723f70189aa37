"""Workers that each stage may have: what the network allows, and pins such as ``exit1=off``."""

from __future__ import annotations

from collections.abc import Sequence

from layoutsel.exits.arrangement import ExitCosts
from layoutsel.exits.arrangement_search import ArrangementOptions
from layoutsel.exits.simulate import TRUNK
from layoutsel.planning.pins import UnsatisfiedPin

OFF = "off"
"""Name of the absence of a worker in pins."""


def all_options(costs: ExitCosts, may_answer: Sequence[bool]) -> ArrangementOptions:
    """Workers by stage; branches that no answer can come from or need are off."""
    wanted = set[int]()
    for number in reversed(range(len(costs.needs))):
        if may_answer[number] or number in wanted:
            wanted |= {number, *costs.needs[number]}
    return ArrangementOptions(
        trunk=tuple(costs.trunk_us),
        branches=tuple(
            (None, *costs.branch_us) if number in wanted else (None,)
            for number in range(len(costs.needs))
        ),
    )


def pinned(
    options: ArrangementOptions, pins: Sequence[str], costs: ExitCosts, exits: Sequence[str]
) -> ArrangementOptions:
    """Narrow `options` to those that keep all pins.

    Parameters
    ----------
    options
        Workers by stage.
    pins
        Texts such as ``exit1=cpu-1``, ``exit2=off`` or ``trunk=cpu``: a worker, a unit, or ``off``.
    costs
        Times of the network.
    exits
        Names of the exits, the final one last.

    Raises
    ------
    UnsatisfiedPin
        If a pin cannot be read, or names an exit or a worker that does not exist.
    """
    for text in pins:
        stage, separator, name = text.partition("=")
        places = {TRUNK: None} | {exit_: number for number, exit_ in enumerate(exits[:-1])}
        if not separator or stage not in places:
            raise UnsatisfiedPin(
                f"cannot read pin {text!r}: expected one of {', '.join(places)}, then '=' and a "
                f"worker, a unit or 'off', such as '{exits[0]}=off'"
            )
        place = places[stage]
        known = options.trunk if place is None else options.branches[place]
        units = {kind.name: kind.unit for kind in costs.workers}
        workers = [one for one in known if name == (one or OFF) or (one and units[one] == name)]
        if not workers:
            names = ", ".join(one or OFF for one in known)
            raise UnsatisfiedPin(
                f"pin {text!r}: got {name!r}; expected {stage} on one of {names}. Exits without a "
                f"threshold, which no other exit needs, are off"
            )
        options = options.narrowed(place, workers)
    return options
