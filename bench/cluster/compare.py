"""Simulated throughput of distributions against that of baselines, and against the bound on all strategies.

``python bench/cluster/compare.py --json bench/results/cluster_compare.json --svg bench/results/cluster_compare.svg``. All
times are modelled (machines.py); no figure is a measurement. ``--helix`` names the folder of Helix's ``.ini`` files.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from baselines import BASELINES, Mix
from clusters import Make, clusters
from figure import Row, draw
from machines import MACHINES
from networks import Priced, priced

from layoutsel.benchmarking.compare import save
from layoutsel.cluster.asked import Asked
from layoutsel.cluster.distribution import SCHEMA_VERSION, Distribution, Distributions, Target
from layoutsel.cluster.metrics import THROUGHPUT, Predictor
from layoutsel.cluster.plan_targets import metrics_of
from layoutsel.cluster.problem import Cluster
from layoutsel.cluster.routes import routes_of
from layoutsel.cluster.simulate import Load, simulate
from layoutsel.cluster.statistics import Statistics
from layoutsel.cluster.targets import answer
from layoutsel.planning.problem import ProblemError

NETWORKS = (
    "light:resnet50",
    "light:inception_v1",
    "light:vgg19",
    "zoo:distilbert",
)
HELIX = Path(__file__).parents[2] / "data" / "partitioning" / "helix"
OFFERED, REQUESTS = 0.99, 3000
"""Share of the predicted throughput that requests arrive at, in equal intervals, and their number."""
BUSY, CALM_REQUESTS = 0.8, 1500
"""Share of it at which latencies of random arrivals are simulated, and number of requests for that."""
TIME_LIMIT_S = 20.0
PLANNED = "layoutsel"


def document(cluster: Cluster, distribution: Distribution) -> Distributions:
    """A document of one distribution."""
    return Distributions(
        schema_version=SCHEMA_VERSION,
        model_name=cluster.graph.model_name,
        model_hash=cluster.graph.model_hash,
        topology=cluster.topology,
        statistics=Statistics(),
        classes=cluster.classes,
        plans={},
        distributions=(distribution,),
        graph=cluster.graph,
        costs=cluster.costs,
    )


def distribution_of(
    predictor: Predictor, mix: Mix, solver: str, time_s: float, bounds: dict[str, float]
) -> Distribution:
    """The distribution of a mix."""
    return Distribution(
        target=Target(name=THROUGHPUT),
        routes=routes_of(predictor, mix),
        metrics=metrics_of(predictor, mix, bounds),
        solver=solver,
        time_s=time_s,
    )


def simulated(cluster: Cluster, distribution: Distribution) -> dict[str, Any]:
    """Completions per second near the predicted throughput, and latencies of random arrivals below it."""
    made = document(cluster, distribution)
    rate_hz = distribution.metrics[THROUGHPUT].predicted
    full = simulate(
        made, distribution, Load(requests=REQUESTS, rate_hz=OFFERED * rate_hz, poisson=False)
    )
    calm = simulate(made, distribution, Load(requests=CALM_REQUESTS, rate_hz=BUSY * rate_hz))
    return {
        "simulated_hz": round(full.throughput_hz, 3),
        "p50_us": round(calm.p50_us, 1),
        "p95_us": round(calm.p95_us, 1),
    }


def rows(network: Priced, name: str, make: Make) -> Iterator[dict[str, Any]]:
    """The planned distribution and the baselines on one cluster."""
    cluster = network.on(make(network.weight_bytes))
    predictor = Predictor(cluster)
    started = time.monotonic()
    try:
        found = answer(Asked(predictor, Target(name=THROUGHPUT), started + TIME_LIMIT_S))
    except ProblemError as reason:
        yield {
            "network": network.graph.model_name,
            "cluster": name,
            "nodes": len(cluster.nodes),
            "method": PLANNED,
            "bound_hz": None,
            "fits": False,
            "reason": str(reason),
        }
        return
    bound_hz = found.bound
    time_s = time.monotonic() - started
    distributions = {
        PLANNED: distribution_of(predictor, found.mix, found.solver, time_s, {THROUGHPUT: bound_hz})
    }
    for method, baseline in BASELINES.items():
        started = time.monotonic()
        mix = baseline(predictor)
        if mix is not None:
            time_s = time.monotonic() - started
            distributions[method] = distribution_of(predictor, mix, method, time_s, {})
    for method in (PLANNED, *BASELINES):
        row = {
            "network": network.graph.model_name,
            "cluster": name,
            "nodes": len(cluster.nodes),
            "method": method,
            "bound_hz": round(bound_hz, 3) if math.isfinite(bound_hz) else None,
        }
        if method not in distributions:
            yield {**row, "fits": False}
            continue
        one = distributions[method]
        predicted_hz = one.metrics[THROUGHPUT].predicted
        met = simulated(cluster, one)
        yield {
            **row,
            "fits": True,
            "predicted_hz": round(predicted_hz, 3),
            **met,
            "simulated_of_bound": round(met["simulated_hz"] / bound_hz, 4),
            "routes": len(one.routes),
            "nodes_used": len(one.nodes),
            "time_s": round(one.time_s, 2),
        }


def main() -> None:
    """Print and save the rows of all networks and clusters, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--helix", type=Path, default=HELIX)
    parser.add_argument("--only", help="part of the names of the clusters")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--svg", type=Path)
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    for model in arguments.networks:
        network = priced(model, tuple(MACHINES))
        for name, make in clusters(arguments.helix).items():
            if arguments.only is None or arguments.only in name:
                for row in rows(network, name, make):
                    print(*row.values(), sep="\t", flush=True)
                    found.append(row)
                save(arguments.json, found)
    if arguments.svg is not None:
        best = {
            (r["network"], r["cluster"]): r["simulated_hz"]
            for r in found
            if r["method"] == PLANNED and r["fits"]
        }
        draw(
            [
                Row(
                    panel=row["network"],
                    label=row["cluster"],
                    series=row["method"],
                    value=row["simulated_hz"] / best[row["network"], row["cluster"]],
                )
                for row in found
                if row["fits"]
            ],
            arguments.svg,
            title=f"simulated throughput relative to {PLANNED}'s (modelled machines)",
        )


if __name__ == "__main__":
    main()
