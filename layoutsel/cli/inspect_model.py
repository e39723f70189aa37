"""``layoutsel inspect``: sub-graphs of a model, their lowest costs, and units that can run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from layoutsel.cli.activity import activity
from layoutsel.cli.options import (
    JsonFlag,
    LimitOption,
    LinksFlag,
    ModelArgument,
    PrecisionOption,
    ShapeOption,
    ThreadsOption,
    UnitsOption,
)
from layoutsel.cli.planner import opened, options_of
from layoutsel.report import terminal

if TYPE_CHECKING:
    from layoutsel.compile.offers import Offers
    from layoutsel.compile.session import Session
    from layoutsel.cost.graph import Subgraph

SCHEMA_VERSION = 1
"""Version of the JSON output."""


def inspect_model(
    model: ModelArgument,
    shape: ShapeOption = None,
    units: UnitsOption = None,
    precision: PrecisionOption = "f32",
    threads: ThreadsOption = None,
    allow_external_links: LinksFlag = False,
    import_limit: LimitOption = None,
    json: JsonFlag = False,
) -> None:
    """Print a model's sub-graphs: operators, shapes, work, complexity score, coverage per unit."""
    with activity() as shown:
        options = options_of(
            shape=shape,
            units=units,
            precision=precision,
            threads=threads,
            allow_external_links=allow_external_links,
            import_limit=import_limit,
        )
        session = opened(model, options, shown)
        shown.phase("asking the units")
        from layoutsel.compile.offers import Offers

        report = describe(Offers.of(session))
    if json:
        terminal.show_json(report)
    else:
        _show(report)


def describe(offers: Offers) -> dict[str, Any]:
    """Collect everything that ``inspect`` prints, as JSON data."""
    session = offers.session
    rows = [_describe_subgraph(offers, subgraph) for subgraph in session.graph.subgraphs]
    return {
        "schema_version": SCHEMA_VERSION,
        "model": session.model.name,
        "model_hash": session.model.content_hash,
        "inputs": _signatures(session.model.inputs),
        "outputs": _signatures(session.model.outputs),
        "threads": session.threads,
        "units": list(session.units),
        "totals": {
            "subgraphs": len(rows),
            "flops": sum(row["flops"] for row in rows),
            "bytes": sum(row["bytes"] for row in rows),
            "units": {name: _unit_totals(name, rows) for name in session.units},
        },
        "subgraphs": rows,
    }


def _signatures(specs: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"name": s.name, "shape": list(s.shape), "dtype": s.dtype} for s in specs]


def _describe_subgraph(offers: Offers, subgraph: Subgraph) -> dict[str, Any]:
    return {
        "id": subgraph.id,
        "anchor": subgraph.anchor,
        "operators": list(subgraph.operators),
        "names": list(subgraph.names),
        "onnx_operators": _onnx_operators(offers.session, subgraph),
        "inputs": [list(spec.shape) for spec in subgraph.inputs],
        "weights": [list(spec.shape) for spec in subgraph.weights],
        "outputs": [list(spec.shape) for spec in subgraph.outputs],
        "flops": subgraph.flops,
        "bytes": subgraph.nbytes,
        "hash": subgraph.structural_hash,
        "units": {name: _describe_unit(offers, subgraph, name) for name in offers.session.units},
    }


def _onnx_operators(session: Session, subgraph: Subgraph) -> list[str]:
    if session.model.onnx is None:
        return []
    kinds = {node.name: node.op_type for node in session.model.onnx.graph.node}
    return [kinds[name] for name in subgraph.names if name in kinds]


def _describe_unit(offers: Offers, subgraph: Subgraph, unit: str) -> dict[str, Any]:
    from layoutsel.building.workloads import workload

    offered = offers.candidates[subgraph.id]
    decisions = [decision for decision in offered.decisions if decision.unit == unit]
    costs = [offers.costs.roofline.subgraph(workload(subgraph), decision) for decision in decisions]
    scores = [cost.us for cost in costs if hasattr(cost, "us")]
    return {
        "score_us": min(scores, default=None),
        "candidates": [str(decision) for decision in decisions],
        "declines": [
            {"decision": decline.decision, "reason": str(decline)}
            for decline in offered.declines
            if decline.decision.split(":")[0] == unit
        ],
        "generic": [
            {"decision": reason.decision, "reason": str(reason)}
            for reason in offered.generic
            if reason.decision.split(":")[0] == unit
        ],
    }


def _unit_totals(unit: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    scores = [row["units"][unit]["score_us"] for row in rows]
    covered = [row for row in rows if row["units"][unit]["candidates"]]
    return {
        "covered": len(covered),
        "covered_flops": sum(row["flops"] for row in covered),
        "score_us": None if None in scores else sum(scores),
    }


def _show(report: Mapping[str, Any]) -> None:
    from layoutsel.report.plan_tables import microseconds, name_text, new_table, operators_text

    units = report["units"]
    columns = [f"{unit} {what}" for unit in units for what in ("µs", "layouts")]
    table = new_table(
        *("id", "operators", "name", "in", "out", "MFLOP", "kB", *columns),
        right=("MFLOP", "kB", *(f"{unit} µs" for unit in units)),
    )
    for row in report["subgraphs"]:
        per_unit = []
        for unit in units:
            told = row["units"][unit]
            per_unit += [microseconds(told["score_us"]), _candidates_text(told["candidates"])]
        table.add_row(
            row["id"],
            operators_text(row["operators"]),
            name_text(row["id"], row["names"]),
            _shapes_text(row["inputs"]),
            _shapes_text(row["outputs"]),
            f"{row['flops'] / 1e6:,.2f}",
            f"{row['bytes'] / 1e3:,.0f}",
            *per_unit,
        )
    terminal.show(table)
    _show_totals(report)
    _show_declines(report)
    _show_generic(report)


def _candidates_text(decisions: Sequence[str]) -> str:
    return (
        " ".join(decision.split(":", 1)[1].replace(":f32", "") for decision in decisions) or "none"
    )


def _shapes_text(shapes: Sequence[Sequence[int]]) -> str:
    return ", ".join("×".join(map(str, shape)) or "scalar" for shape in shapes)


def _show_totals(report: Mapping[str, Any]) -> None:
    from layoutsel.report.plan_tables import milliseconds

    totals = report["totals"]
    terminal.show_text("")
    terminal.show_text(
        f"{report['model']}: {totals['subgraphs']} sub-graphs, {totals['flops'] / 1e9:.3f} GFLOP, "
        f"{totals['bytes'] / 1e6:.1f} MB read and written; scores on {report['threads']} threads"
    )
    for unit, told in totals["units"].items():
        share = 100 * told["covered_flops"] / max(1, totals["flops"])
        score = (
            ""
            if told["score_us"] is None
            else f", complexity score {milliseconds(told['score_us'])}"
        )
        terminal.show_text(
            f"{unit}: covers {told['covered']} of {totals['subgraphs']} sub-graphs, "
            f"{share:.1f} % of the FLOPs{score}"
        )


def _show_declines(report: Mapping[str, Any]) -> None:
    reasons = [
        decline["reason"]
        for row in report["subgraphs"]
        for unit in row["units"].values()
        for decline in unit["declines"]
        if not unit["candidates"]
    ]
    if reasons:
        terminal.show_text("not covered:")
        for reason in reasons:
            terminal.show_text(f"  {reason}")


def _show_generic(report: Mapping[str, Any]) -> None:
    """Print the sub-graphs that only generic code can run, with their share of the work."""
    total = max(1, report["totals"]["flops"])
    lines = []
    for row in report["subgraphs"]:
        told = row["units"].values()
        reasons = [entry["reason"] for unit in told for entry in unit["generic"]]
        if reasons and len(reasons) == sum(len(unit["candidates"]) for unit in told):
            lines.append(f"  {100 * row['flops'] / total:.1f} % of the FLOPs: {reasons[0]}")
    if lines:
        terminal.show_text("only generic code:")
        for line in lines:
            terminal.show_text(line)
