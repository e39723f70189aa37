"""Tables and texts about plans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Group
from rich.table import Table

from layoutsel.core.precision import F32, precision_mode
from layoutsel.device.artifact_header import RENEW
from layoutsel.planning.explain import Counterfactual
from layoutsel.planning.objectives import objectives
from layoutsel.planning.plan import Plan
from layoutsel.planning.value_of_information import MEASURED
from layoutsel.planning.values import SUM
from tvm_passes.decision import DIRECT
from tvm_passes.short_name import short_name

US = "us"
"""Unit of objectives that are times, in plan files."""
_SHOWN_LEAD = 0.05
"""Smallest advantage of another plan that is shown, in the unit of the objective."""
NOTABLE_SLOWDOWN = 0.03
"""Smallest relative slowdown of the machine that is shown."""
_SHOWN_OPERATORS = 4
"""Maximum number of operators in a table cell."""


def microseconds(value: float | None) -> str:
    """Text of `value` with about three digits."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def milliseconds(us: float) -> str:
    """Text of `us` microseconds in milliseconds."""
    return f"{us / 1e3:.3f} ms"


def change(us: float | None) -> str:
    """Text of a difference of `us` microseconds, with its sign."""
    if us is None:
        return "–"
    return "0" if abs(us) < 0.05 else f"{us:+,.1f}"


def amount(number: float, unit: str) -> str:
    """Write a number with its unit and about three digits."""
    return f"{microseconds(number)} {'µs' if unit == US else unit}"


def tenths(number: float) -> float:
    """Round to one decimal; a rounded zero has no sign."""
    return round(number, 1) + 0.0


def predicted_lead(plan: Plan) -> float:
    """Predicted advantage of the best known plan with another decision, in the plan's unit.

    0 if the plan itself has the best prediction. A plan that won a race need not have it.
    """
    extras = (
        other.extra
        for subgraph in plan.subgraphs
        for other in subgraph.alternatives
        if other.extra is not None and other.excess <= 0
    )
    lead = -min(extras, default=0.0)
    return lead if lead >= _SHOWN_LEAD else 0.0


def _extra(other: Counterfactual, lead: float) -> str:
    """Extra cost of the whole plan with another decision."""
    if other.excess > 0:
        return "exceeds the limits"
    return change(None if other.extra is None else other.extra + lead)


def source_text(source: str) -> str:
    """Text of a cost's source, in upper case for measured costs."""
    return source.upper() if source == MEASURED else source


def operators_text(operators: Sequence[str]) -> str:
    """Short text of operators, such as ``conv2d+add+relu``."""
    names = [operator.removeprefix("nn.") for operator in operators]
    if len(names) > _SHOWN_OPERATORS:
        names = [*names[: _SHOWN_OPERATORS - 1], f"{len(names) - _SHOWN_OPERATORS + 1} more"]
    return "+".join(names)


def name_text(id_: str, names: Sequence[str]) -> str:
    """Name of a sub-graph's first operator in the source model; empty if equal to the id."""
    return "" if not names or id_ in map(short_name, names) else names[0]


def new_table(*columns: str, right: Iterable[str] = (), title: str | None = None) -> Table:
    """Make an empty table; columns in `right` are right-aligned."""
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    aligned = set(right)
    for column in columns:
        # Ids are copied from tables into pins, so they stay in one line.
        table.add_column(
            column,
            justify="right" if column in aligned else "left",
            overflow="fold",
            no_wrap=column == "id",
        )
    return table


def plan_table(plan: Plan) -> Table:
    """Table of sub-graphs in execution order.

    Extras are those over the best predicted plan, which this plan need not be after a race.
    """
    lead = predicted_lead(plan)
    precise = ("precision",) if plan.precision != F32 else ()
    extra = f"extra {'µs' if plan.unit == US else plan.unit}"
    table = new_table(
        *("id", "operators", "name", "unit", "layout", *precise, "algorithm", "µs", "±", "from"),
        *("next best", extra),
        right=("µs", "±", extra),
    )
    if lead:
        table.caption = "extra: over the plan with the best prediction"
        table.caption_justify = "left"
    for subgraph in plan.subgraphs:
        best = subgraph.alternatives[0] if subgraph.alternatives else None
        decision = subgraph.decision
        table.add_row(
            subgraph.id,
            operators_text(subgraph.operators),
            name_text(subgraph.id, subgraph.names),
            decision.unit,
            decision.layout,
            *(decision.precision for _ in precise),
            decision.algorithm,
            microseconds(subgraph.cost_us),
            microseconds(subgraph.spread_us),
            source_text(subgraph.source),
            str(best.decision) if best else "",
            _extra(best, lead) if best else "",
        )
    return table


def shares(plan: Plan) -> str:
    """Number of sub-graphs per decision, as text."""
    places = Counter(str(replace(s.decision, algorithm=DIRECT)) for s in plan.subgraphs)
    return ", ".join(f"{count} on {place}" for place, count in places.most_common())


def summary(plan: Plan) -> Group:
    """Summary of a plan: shares of decisions, cost, lower bound, gap."""
    boundary_us = sum(boundary.cost_us for boundary in plan.boundaries)
    kinds = Counter(boundary.kind for boundary in plan.boundaries)
    copies = f"{kinds['copy']} copies, " if kinds["copy"] else ""
    sources = Counter(subgraph.source for subgraph in plan.subgraphs)
    costs = ", ".join(f"{count} {source}" for source, count in sources.most_common())
    certificate = (
        "proven best" if plan.gap == 0 else f"at most {100 * plan.gap:.2f} % from the best"
    )
    return Group(
        "",
        f"{plan.model_name}: {len(plan.subgraphs)} sub-graphs: {shares(plan)}",
        f"predicted {milliseconds(plan.cost_us)} ± {milliseconds(plan.spread_us)}, of it "
        f"{milliseconds(boundary_us)} for {copies}{kinds['transform']} layout transforms and "
        f"{kinds['crossing']} unit crossings; costs of sub-graphs: {costs}",
        f"lower bound {milliseconds(plan.bound_us)}, gap {100 * plan.gap:.2f} % ({certificate}); "
        f"strategy {plan.strategy}, solver {plan.solver}, {plan.time_s:.2f} s",
        *now_lines(plan),
        *objective_lines(plan),
        *lead_lines(plan),
        *uncertainty_lines(plan),
        *precision_lines(plan),
    )


def now_lines(plan: Plan) -> Iterator[str]:
    """Predicted time at the machine's present speed, if that differs from its best."""
    now = plan.now
    if now is not None and now.us > (1 + NOTABLE_SLOWDOWN) * plan.cost_us:
        yield (
            f"that is at the machine's best; now {milliseconds(now.us)}: arithmetic runs at "
            f"{100 * now.compute:.0f} % of the best, memory at {100 * now.memory:.0f} %"
        )


def objective_lines(plan: Plan) -> Iterator[str]:
    """Values of objectives other than the sum of costs, with their certificates."""
    for name, value in plan.values.items():
        if name == SUM:
            continue
        known = objectives().get(name)
        less = f", {_against_sum(value.value, plan.cost_us)}" if plan.order else ""
        yield (
            f"{known.about if known else name}: {_in_unit(value.value, value.unit)}{less}; "
            f"lower bound {_in_unit(value.bound, value.unit)}, gap {100 * value.gap:.2f} %"
        )


def _against_sum(us: float, sum_us: float) -> str:
    """Compare a time with that of the same plan without overlaps."""
    saved = tenths(100 * (1 - us / max(sum_us, 1e-9)))
    if saved == 0:
        return "the same as one after the other"
    return f"{abs(saved):.1f} % {'less' if saved > 0 else 'more'} than one after the other"


def lead_lines(plan: Plan) -> Iterator[str]:
    """Comparison with a plan of a better prediction; empty if there is none."""
    lead = predicted_lead(plan)
    if lead:
        yield f"another plan {better_prediction(plan, lead)}"


def better_prediction(plan: Plan, lead: float) -> str:
    """Say by how much something has a better prediction than a plan."""
    chosen = ", but this one was measured to be the fastest" if plan.measured else ""
    return f"has a prediction that is {amount(lead, plan.unit)} better{chosen}"


def _in_unit(number: float, unit: str) -> str:
    return milliseconds(number) if unit == US else f"{number:g} {unit}"


def uncertainty_lines(plan: Plan) -> Iterator[str]:
    """Effect of uncertain costs on the certificate; empty if all costs are certain."""
    if plan.uncertainty is None or plan.gap_within_spread is None:
        return
    if plan.uncertainty.loss_us <= 0 and plan.gap_within_spread <= plan.gap:
        return
    loss = 100 * plan.uncertainty.loss_us / max(plan.cost_us, 1e-9)
    yield (
        "if costs are as low as their ± allows: lower bound "
        f"{milliseconds(plan.uncertainty.bound_us)}, "
        f"gap {100 * plan.gap_within_spread:.2f} %; knowing every cost exactly is expected to save "
        f"at most {milliseconds(plan.uncertainty.loss_us)} ({loss:.2f} %)"
    )


def precision_lines(plan: Plan) -> Iterator[str]:
    """Number of sub-graphs per precision and the tolerance; empty for plans in f32 alone."""
    if plan.precision == F32:
        return
    counts = Counter(subgraph.decision.precision for subgraph in plan.subgraphs)
    mode = precision_mode(plan.precision, plan.max_rel_error)
    yield f"precision {mode.name}: {_counts(counts)}; relative L2 error allowed: {mode.tolerance:g}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} in {precision}" for precision, count in sorted(counts.items()))


def trade_off_tables(plan: Plan) -> Iterator[Table | str]:
    """Time against error of alternative plans; empty for plans without an error budget."""
    if not plan.trade_off:
        return
    numbers = ("predicted", "measured", "error, predicted", "error, measured")
    table = new_table("trade-off", *numbers, "sub-graphs", right=numbers)
    for point in plan.trade_off:
        table.add_row(
            "chosen" if point.chosen else "",
            milliseconds(point.cost_us),
            "" if point.measured_us is None else milliseconds(point.measured_us),
            f"{point.error:.1e}",
            "" if point.rel_l2_err is None else f"{point.rel_l2_err:.1e}",
            _counts(point.precisions),
        )
    yield ""
    yield table


def fallback_lines(header: Mapping[str, Any]) -> Iterator[str]:
    """Description of a compiled model's fallback; empty if there is none."""
    other = header.get("fallback")
    if other is None:
        return
    plan = Plan.read(other["plan"], file="plan of the fallback", renew=RENEW)
    yield f"without its devices: {shares(plan)}, predicted {milliseconds(plan.cost_us)}"
    yield from (f"without its devices: {line}" for line in check_lines(other.get("checks", ())))


def check_lines(checks: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Errors of a compiled model's outputs against the reference."""
    for check in checks:
        samples = check.get("samples", 1)
        on = f" on {samples} samples, the worst" if samples > 1 else ""
        yield (
            f"verified {check['output']!r} against {check['reference']}{on}: "
            f"relative L2 error {check['rel_l2_err']:.1e}"
        )


def measured_table(plan: Plan) -> Table:
    """Table of the plan's and its contenders' measured times, fastest first."""
    table = new_table("measured", "median", "±", "runs", "×", right=("median", "±", "runs", "×"))
    ordered = sorted(plan.measured.items(), key=lambda item: item[1].median_us)
    for name, measured in ordered:
        table.add_row(
            name,
            milliseconds(measured.median_us),
            milliseconds(measured.spread_us),
            str(measured.runs),
            f"{measured.median_us / ordered[0][1].median_us:.2f}",
        )
    return table
