"""Table of all metrics of all distributions."""

from __future__ import annotations

from collections.abc import Sequence

from layoutsel.cluster.segments import SHOWN, Distribution, Metric, shown

KINDS = ("predicted", "simulated", "measured")
"""Values of a metric, each in a row of its own."""


def cells(distributions: Sequence[Distribution]) -> list[list[str]]:
    """Rows of the table: its head, values by target, and the bound of each metric."""
    names = list(dict.fromkeys(name for one in distributions for name in one.metrics))
    rows = [["target", "value", *names]]
    for one in distributions:
        for kind in KINDS:
            found = [one.metrics.get(name) for name in names]
            if any(metric is not None and _value(metric, kind) is not None for metric in found):
                rows.append(
                    [
                        one.target.label if kind == KINDS[0] else "",
                        kind,
                        *(
                            _cell(metric, kind, own=name == one.target.name)
                            for name, metric in zip(names, found, strict=True)
                        ),
                    ]
                )
    bounds = [_bound(distributions, name) for name in names]
    return [*rows, ["all", "bound", *bounds]]


def matrix(distributions: Sequence[Distribution]) -> str:
    """Table as text; the target of each row is marked."""
    rows = cells(distributions)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join(lines) + "\n"


def _value(metric: Metric, kind: str) -> float | None:
    found: float | None = getattr(metric, kind)
    return found


def _cell(metric: Metric | None, kind: str, *, own: bool) -> str:
    value = None if metric is None else _value(metric, kind)
    if metric is None or value is None:
        return "-"
    factor, unit = SHOWN.get(metric.unit, (1.0, metric.unit))
    spread = f" ±{metric.spread * factor:.2g}" if kind == KINDS[0] and metric.spread else ""
    return f"{'*' if own and kind == KINDS[0] else ''}{value * factor:.4g}{spread} {unit}"


def _bound(distributions: Sequence[Distribution], name: str) -> str:
    """Bound that holds without limits: that of a distribution for another target."""
    found = [
        one.metrics[name]
        for one in distributions
        if name in one.metrics and (one.target.name != name or not one.target.limits)
    ]
    known = [metric for metric in found if metric.bound is not None]
    if not known or known[0].bound is None:
        return "-"
    return shown(known[0].bound, known[0].unit)
