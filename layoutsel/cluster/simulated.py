"""Simulations shown and kept: tables, the window of a chart, simulated metrics of a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.table import Table

from layoutsel.cluster.distribution import Distributions
from layoutsel.cluster.segments import Distribution, Metric
from layoutsel.cluster.simulate import Incident, Load, Simulation
from layoutsel.report.plan_tables import new_table

_SHOWN_REQUESTS = 8
"""Number of request times that a chart shows."""
_MOST_RESOURCES = 12
"""Maximum number of resources in the table of utilisation."""


def shown_window(distribution: Distribution, incidents: Sequence[Incident]) -> tuple[float, float]:
    """Time that a chart shows, microseconds: the first requests, or those around the first loss."""
    request_us = max(
        sum(segment.us for segment in route.segments)
        + sum(transfer.us for transfer in route.transfers)
        for route in distribution.routes
    )
    first_us = min((one.at_us - request_us for one in incidents if not one.joins), default=0.0)
    return max(first_us, 0.0), max(first_us, 0.0) + _SHOWN_REQUESTS * request_us


def with_simulated(
    made: Distributions, distribution: Distribution, load: Load, found: Simulation
) -> Distributions:
    """Copy a document with the simulated metrics of one of its distributions.

    One request at a time tells latency and memory, many at once tell the throughput, both the
    energy.
    """
    values = {"energy": found.joules}
    if load.rate_hz is None and load.in_flight == 1:
        values["latency"] = found.mean_us
        values["memory"] = _memory(made, distribution, found)
    else:
        values["throughput"] = found.throughput_hz

    def told(name: str, metric: Metric) -> Metric:
        value = values.get(name)
        return metric if value is None else replace(metric, simulated=value)

    metrics = {name: told(name, metric) for name, metric in distribution.metrics.items()}
    return replace(
        made,
        distributions=tuple(
            replace(one, metrics=metrics) if one is distribution else one
            for one in made.distributions
        ),
    )


def _memory(made: Distributions, distribution: Distribution, found: Simulation) -> float | None:
    """Largest memory of a node, bytes: weights of its atoms and tensors between atoms."""
    if made.graph is None:
        return None
    atoms: dict[str, set[str]] = {}
    for route in distribution.routes:
        for segment in route.segments:
            atoms.setdefault(segment.node, set()).update(segment.atoms)
    weights = made.graph.weight_bytes
    return max(
        sum(weights.get(atom, 0.0) for atom in held) + found.peak_bytes.get(node, 0.0)
        for node, held in atoms.items()
    )


def simulation_table(found: Simulation) -> Table:
    """Table of what the requests met."""
    table = new_table("simulated", "value", right=("value",))
    rows = {
        "requests": f"{found.requests:,}",
        "throughput": f"{found.throughput_hz:,.4g} Hz",
        "latency, mean": _milliseconds(found.mean_us),
        "latency, median": _milliseconds(found.p50_us),
        "latency, 95 % are below": _milliseconds(found.p95_us),
        "latency, 99 % are below": _milliseconds(found.p99_us),
        "time until the last ended": _milliseconds(found.makespan_us),
    }
    if found.joules is not None:
        rows["energy of a request"] = f"{found.joules:.4g} J"
    if found.replayed or found.lost:
        rows["started again after a loss"] = f"{found.replayed:,}"
        rows["answered after a loss within"] = f"{_milliseconds(found.recovery_us)} (99 %)"
        rows["lost"] = f"{found.lost:,}"
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def utilisation_table(found: Simulation) -> Table:
    """Table of the busiest resources, and of the tensors that nodes held."""
    table = new_table("resource", "busy", "most tensors", right=("busy", "most tensors"))
    busiest = sorted(found.utilisation.items(), key=lambda item: -item[1])[:_MOST_RESOURCES]
    for name, share in busiest:
        size = found.peak_bytes.get(name)
        table.add_row(name, f"{100 * share:.1f} %", "" if size is None else f"{size / 1e6:.3g} MB")
    left = len(found.utilisation) - len(busiest)
    if left > 0:
        table.add_row(f"and {left} more", "", "")
    return table


def _milliseconds(us: float) -> str:
    return f"{us / 1e3:,.4g} ms"
