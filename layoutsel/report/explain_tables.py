"""Explanation of a plan as text and tables."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from layoutsel.planning.explain import Counterfactual
from layoutsel.planning.plan import Plan, PlannedSubgraph
from layoutsel.planning.problem import Boundary
from layoutsel.report import terminal
from layoutsel.report.plan_tables import (
    US,
    amount,
    better_prediction,
    change,
    measured_table,
    microseconds,
    milliseconds,
    name_text,
    new_table,
    now_lines,
    operators_text,
    predicted_lead,
    source_text,
    summary,
    tenths,
    trade_off_tables,
)
from layoutsel.report.residual_tables import in_plan_lines, residual_lines, worst_table
from tvm_passes.errors import Decline

_SHOWN_IDS = 10
"""Maximum number of sub-graph ids in a line about declines."""
SPLIT_EXACT = (
    "whole plan: the best plan with that decision, against this one; where the extra comes from: "
    "the sub-graph itself, all layout transforms, all hand-overs between units, and sub-graphs "
    "that would then decide otherwise"
)
"""Legend of :func:`candidates_table` for exact costs."""
SPLIT_BOUND = (
    "whole plan: this plan with that decision alone changed, an upper bound; where the extra comes "
    "from: the sub-graph itself, its layout transforms, and its hand-overs between units"
)
"""Legend of :func:`candidates_table` for upper bounds."""


def show_explanation(plan: Plan, measured_us: Mapping[str, float]) -> None:
    """Print sub-graphs with reasons, boundaries, declines, gains and measurements."""
    terminal.show(subgraph_table(plan, measured_us), summary(plan))
    terminal.show_text("")
    paid = [b for b in plan.boundaries if b.kind == "transform" or b.cost_us > 0]
    if paid:
        terminal.show(boundary_table(paid), "")
    for line in decline_lines(plan.declines):
        terminal.show_text(line)
    if plan.gains is not None:
        terminal.show("", gains_table(plan))
    terminal.show_text("")
    for line in measured_lines(plan):
        terminal.show_text(line)
    if plan.measured:
        terminal.show(measured_table(plan))
    terminal.show(*trade_off_tables(plan))
    if plan.residuals is not None:
        terminal.show("", *residual_lines(plan, plan.residuals), "", worst_table(plan.residuals))


def subgraph_table(plan: Plan, measured_us: Mapping[str, float]) -> Table:
    """Table of sub-graphs with the reasons of their decisions."""
    columns = ["id", "operators", "name", "decision", "µs", "±", "from"]
    if measured_us:
        columns.append("measured µs")
    table = new_table(*columns, "why", right=("µs", "±", "measured µs"))
    for subgraph in plan.subgraphs:
        row = [
            subgraph.id,
            operators_text(subgraph.operators),
            name_text(subgraph.id, subgraph.names),
            str(subgraph.decision),
            microseconds(subgraph.cost_us),
            microseconds(subgraph.spread_us),
            source_text(subgraph.source),
        ]
        if measured_us:
            row.append(microseconds(measured_us.get(subgraph.id)))
        table.add_row(*(escape(cell) for cell in row), escape(reason(plan, subgraph)))
    return table


def reason(plan: Plan, subgraph: PlannedSubgraph) -> str:
    """Short reason for a sub-graph's decision."""
    others = subgraph.alternatives
    if not others:
        declined = any(decline.subgraph == subgraph.id for decline in plan.declines)
        return (
            "the only candidate" if declined or plan.gains else "not explained: --model MODEL does"
        )
    best = others[0]
    if best.extra is None:
        return "every other decision costs far more"
    if best.excess > 0:
        return "every other decision exceeds the limits"
    if best.extra < 0 and predicted_lead(plan):
        return f"{best.decision} {better_prediction(plan, -best.extra)}"
    text = f"next best {best.decision} costs {amount(max(best.extra, 0.0), plan.unit)} more"
    if plan.unit == US and best.extra <= subgraph.spread_us:
        text += ", within the spread"
    return text + _faster_alone(plan, subgraph)


def _faster_alone(plan: Plan, subgraph: PlannedSubgraph) -> str:
    """Name the fastest candidate, if it is faster alone and the plan with it is no better."""
    faster = min(subgraph.alternatives, key=lambda other: other.cost_us)
    gain_us = subgraph.cost_us - faster.cost_us
    if gain_us <= 0 or faster.rank <= (0.0, 0.0):
        return ""
    text = f"; {faster.decision} alone is {microseconds(gain_us)} µs faster, but the whole "
    if faster.excess > 0:
        return f"{text}exceeds the limits"
    if faster.extra is None:
        return f"{text}is far slower"
    return f"{text}is {amount(faster.extra, plan.unit)} {'slower' if plan.unit == US else 'worse'}"


def boundary_table(boundaries: Sequence[Boundary]) -> Table:
    """Table of boundary costs, most expensive first."""
    table = new_table("boundary", "from", "to", "tensor", "for", "µs", right=("µs",))
    for boundary in sorted(boundaries, key=lambda boundary: -boundary.cost_us):
        cells = (boundary.kind, boundary.source, boundary.destination, boundary.tensor)
        table.add_row(*cells, ", ".join(boundary.consumers), microseconds(boundary.cost_us))
    return table


def decline_lines(declines: tuple[Decline, ...]) -> Iterator[str]:
    """Reasons of declined candidates, with equal reasons merged."""

    def key(decline: Decline) -> tuple[str, str, str, str]:
        return decline.decision, decline.operator, decline.got, decline.expected

    grouped = itertools.groupby(sorted(declines, key=key), key=key)
    for (decision, operator, got, expected), members in grouped:
        ids = [decline.subgraph for decline in members]
        more = f" and {len(ids) - _SHOWN_IDS} more" if len(ids) > _SHOWN_IDS else ""
        where = ", ".join(ids[:_SHOWN_IDS]) + more
        yield f"not {decision} for {where} ({operator}): got {got}; expected {expected}"


def gains_table(plan: Plan) -> Table:
    """Table of predicted times of simpler strategies."""
    gains = plan.gains
    assert gains is not None
    table = new_table(
        "how to choose", "predicted", "against this plan", right=("predicted", "against this plan")
    )
    rows = (
        (f"this plan ({plan.strategy})", gains.plan_us),
        ("unit and layout together (joint)", gains.joint_us),
        ("unit by complexity score, then layout (score)", gains.score_us),
        (f"layout choice alone (unit {gains.layouts_alone_unit})", gains.layouts_alone_us),
        (f"unit choice alone (layout {gains.units_alone_layout})", gains.units_alone_us),
        (f"one decision for all ({gains.single_name})", gains.single_us),
    )
    for name, us in rows:
        change = tenths(100 * (us / gains.plan_us - 1) if gains.plan_us else 0.0)
        table.add_row(name, milliseconds(us), f"{change:+.1f} %")
    return table


def measured_lines(plan: Plan) -> Iterator[str]:
    """Predicted against measured time, and the gain of joint choosing over score."""
    own = plan.own_measurement
    if own is None:
        yield (
            f"predicted {milliseconds(plan.run_us)} ± {milliseconds(plan.spread_us)}; "
            f"the whole model was not measured"
        )
    else:
        off = tenths(100 * (plan.run_us / own.median_us - 1))
        yield (
            f"predicted {milliseconds(plan.run_us)} ± {milliseconds(plan.spread_us)}, measured "
            f"{milliseconds(own.median_us)} ± {milliseconds(own.spread_us)}: "
            f"the prediction is {off:+.1f} % off"
        )
    yield from now_lines(plan)
    if plan.gains is not None and plan.gains.score_us:
        gain = tenths(100 * (1 - plan.gains.joint_us / plan.gains.score_us))
        yield (
            f"choosing jointly gains {gain:.1f} % over choosing the unit by score first "
            f"({milliseconds(plan.gains.score_us)} to {milliseconds(plan.gains.joint_us)}, "
            f"predicted)"
        )
    if not plan.exact and plan.gains is not None:
        yield "the alternatives' extra costs are upper bounds: all else stays as it is"


def candidates_table(plan: Plan, subgraph: PlannedSubgraph) -> Table:
    """Table of a sub-graph's other candidates, with the extra cost of the whole plan by part.

    Extras of the whole plan are those over the best predicted plan, as in the table of the plan.
    """
    lead = predicted_lead(plan)
    numbers = ("alone µs", "±", "whole plan", "itself", "transforms", "hand-overs", "others")
    table = new_table("other candidates", *numbers[:2], "from", *numbers[2:], right=numbers)
    if lead:
        table.add_row(
            f"{subgraph.decision} (this plan)",
            microseconds(subgraph.cost_us),
            microseconds(subgraph.spread_us),
            source_text(subgraph.source),
            _more(lead, plan.unit),
            *4 * (change(0.0),),
        )
    for other in subgraph.alternatives:
        table.add_row(
            str(other.decision),
            microseconds(other.cost_us),
            microseconds(other.spread_us),
            source_text(other.source),
            _whole(other, plan.unit, lead),
            change(other.own_us),
            change(other.transforms_us),
            change(other.crossings_us),
            _others(other),
        )
    return table


def legend(plan: Plan) -> str:
    """Meaning of the columns of :func:`candidates_table`."""
    text = SPLIT_EXACT if plan.exact else SPLIT_BOUND
    if predicted_lead(plan):
        text += (
            ". This plan has not the best prediction: whole plans are compared with the one that "
            "has, and the parts with this plan"
        )
    return text


def _whole(other: Counterfactual, unit: str, lead: float) -> str:
    """Extra cost of the whole plan with another candidate."""
    if other.extra is None:
        return "far more"
    number = _more(other.extra + lead, unit)
    return f"{number}, exceeds the limits" if other.excess > 0 else number


def _more(extra: float, unit: str) -> str:
    return f"{tenths(extra):+,.1f} {'µs' if unit == US else unit}"


def _others(other: Counterfactual) -> str:
    if not other.others:
        return change(other.others_us)
    noun = "sub-graph" if other.others == 1 else "sub-graphs"
    return f"{change(other.others_us)} ({other.others} {noun})"


def show_subgraph(plan: Plan, id_: str) -> None:
    """Print all known facts about one sub-graph."""
    (subgraph,) = (subgraph for subgraph in plan.subgraphs if subgraph.id == id_)
    names = f" ({', '.join(subgraph.names)})" if subgraph.names else ""
    terminal.show_text(
        f"{id_}: {', '.join(subgraph.operators)}{names}, reads {', '.join(subgraph.reads)}"
    )
    terminal.show_text(
        f"runs as {subgraph.decision}: {microseconds(subgraph.cost_us)} ± "
        f"{microseconds(subgraph.spread_us)} µs, {subgraph.source}: {reason(plan, subgraph)}"
    )
    if plan.residuals is not None:
        for line in in_plan_lines(plan.residuals, id_):
            terminal.show_text(line)
    if subgraph.alternatives:
        terminal.show("", candidates_table(plan, subgraph))
        terminal.show_text(legend(plan))
    prefix = f"{id_}."
    around = [b for b in plan.boundaries if b.tensor.startswith(prefix) or id_ in b.consumers]
    if around:
        terminal.show("", boundary_table(around))
    for line in decline_lines(tuple(d for d in plan.declines if d.subgraph == id_)):
        terminal.show_text(line)
