"""``layoutsel exits inspect``: exits of a network, and the work of trunk and branches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layoutsel.cli.activity import activity
from layoutsel.cli.exits_network import SpecOption, network_of
from layoutsel.cli.options import (
    JsonFlag,
    LimitOption,
    LinksFlag,
    ModelArgument,
    ShapeOption,
)
from layoutsel.core.files import check_output
from layoutsel.report import terminal
from tvm_passes.limits import parse_limits

if TYPE_CHECKING:
    from layoutsel.exits.inspecting import Inspection

SCHEMA_VERSION = 1
"""Version of the JSON output."""


def inspect(
    model: ModelArgument,
    spec: SpecOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Specification to write (JSON)."),
    ] = None,
    shape: ShapeOption = None,
    allow_external_links: LinksFlag = False,
    import_limit: LimitOption = None,
    json: JsonFlag = False,
) -> None:
    """Print a network's exits: their outputs, and the work of trunk and branches."""
    check_output(output)
    limits = parse_limits(import_limit)
    with activity() as shown:
        network = network_of(shown, model, spec, shape, allow_external_links, limits)
        from layoutsel.exits.inspecting import inspect

        shown.phase("dividing")
        found = inspect(network, limits=limits)
    if output is not None:
        network.spec.save(output)
    if json:
        terminal.show_json(_describe(found))
    else:
        _show(found)
        if output is not None:
            terminal.show_text(f"specification written to {output}")


def _describe(found: Inspection) -> dict[str, Any]:
    """Collect everything that ``inspect`` prints, as JSON data."""
    from layoutsel import documents

    network, division = found.network, found.division
    return {
        "schema_version": SCHEMA_VERSION,
        "model": network.name,
        "is_guessed": network.is_guessed,
        "spec": documents.to_json(network.spec),
        "classes": network.classes,
        "score": network.score,
        "flops": [found.flops_until(i) for i in range(len(network.names))],
        "needs": [[network.names[i] for i in needed] for needed in division.needs],
        "stages": [
            {"name": name, "subgraphs": list(held), "flops": found.flops(held)}
            for name, held in division.stages().items()
        ],
        "unused": list(network.unused),
        "remarks": list(found.remarks),
    }


def _show(found: Inspection) -> None:
    from layoutsel.report.plan_tables import new_table

    network, division = found.network, found.division
    total = max(1, found.flops_until(len(division.branches)))
    exits = new_table(
        *("exit", "output", "values", "MFLOP", "% of final", "reads exits"),
        right=("MFLOP", "% of final"),
    )
    for position, exit_ in enumerate(network.spec.exits):
        flops = found.flops_until(position)
        needs = division.needs[position] if position < len(division.needs) else ()
        exits.add_row(
            exit_.name,
            exit_.output,
            "probabilities" if exit_.is_probability else "logits",
            f"{flops / 1e6:,.2f}",
            f"{100 * flops / total:.1f}",
            ", ".join(network.names[i] for i in needs),
        )
    stages = new_table(
        *("stage", "sub-graphs", "first", "last", "MFLOP"), right=("sub-graphs", "MFLOP")
    )
    for name, held in division.stages().items():
        flops = found.flops(held)
        stages.add_row(name, str(len(held)), held[0], held[-1], f"{flops / 1e6:,.2f}")
    terminal.show(exits, stages)
    terminal.show_text(
        f"{network.name}: {len(network.names)} exits of {network.classes} classes, "
        f"score {network.score}"
    )
    for remark in found.remarks:
        terminal.show_text(remark)
