"""Targets against metrics on eight nodes, for networks with branches: each target should be best in its own metric.

``python bench/cluster/targets_matrix.py --json bench/results/cluster_targets.json --svg bench/results/cluster_targets.svg``. All
times are modelled (machines.py). The chart shows one request of the first network's latency and throughput distributions.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from clusters import switched
from networks import priced

from layoutsel.benchmarking.compare import save
from layoutsel.cluster.distribution import SCHEMA_VERSION, Distributions
from layoutsel.cluster.gantt import write_gantt
from layoutsel.cluster.metrics import METRICS
from layoutsel.cluster.plan_targets import plan_targets
from layoutsel.cluster.segments import Distribution, Target
from layoutsel.cluster.simulate import Load, simulate
from layoutsel.cluster.simulated import shown_window, with_simulated
from layoutsel.cluster.statistics import Statistics

NETWORKS = ("light:inception_v1", "zoo:hrnet_w18_small", "zoo:googlenet")
COUNTS = {"n100": 2, "i5": 2, "epyc": 2, "xeon": 2}
GBPS, RTT_US = 10.0, 60.0
IN_FLIGHT, REQUESTS = 128, 4000
TIME_LIMIT_S = 20.0


def planned(model: str) -> Distributions:
    """One distribution for each metric, with simulated values."""
    network = priced(model, tuple(COUNTS))
    cluster = network.on(switched(COUNTS, gbps=GBPS, rtt_us=RTT_US))
    made = Distributions(
        schema_version=SCHEMA_VERSION,
        model_name=model,
        model_hash=cluster.graph.model_hash,
        topology=cluster.topology,
        statistics=Statistics(),
        classes=cluster.classes,
        plans=network.plans,
        distributions=plan_targets(
            cluster,
            [Target(name=name) for name in METRICS],
            time_limit_s=TIME_LIMIT_S,
            spares=False,
        ),
        graph=cluster.graph,
        costs=cluster.costs,
    )
    for number in range(len(made.distributions)):
        for load in (
            Load(requests=200, in_flight=1),
            Load(requests=REQUESTS, in_flight=IN_FLIGHT),
        ):
            one = made.distributions[number]
            made = with_simulated(made, one, load, simulate(made, one, load))
    return made


def rows(made: Distributions) -> Iterator[dict[str, Any]]:
    """One row for each target and metric."""
    for one in made.distributions:
        for name, metric in one.metrics.items():
            best = [other.metrics[name].predicted for other in made.distributions]
            least = max(best) if METRICS[name].maximised else min(best)
            yield {
                "network": made.model_name,
                "target": one.target.name,
                "metric": name,
                "unit": metric.unit,
                "predicted": metric.predicted,
                "bound": metric.bound,
                "simulated": metric.simulated,
                "is_best": abs(metric.predicted - least) <= 1e-6 * abs(least),
                "routes": len(one.routes),
                "nodes_used": len(one.nodes),
            }


def differ(one: Distribution, other: Distribution) -> bool:
    """Whether two distributions run requests differently."""
    return [replace(r, weight=0.0) for r in one.routes] != [
        replace(r, weight=0.0) for r in other.routes
    ]


def main() -> None:
    """Print the matrices, save the rows, and draw the first network's requests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--svg", type=Path)
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    for number, model in enumerate(arguments.networks):
        made = planned(model)
        print(model, made.matrix(), sep="\n", flush=True)
        mine = list(rows(made))
        own = all(row["is_best"] for row in mine if row["target"] == row["metric"])
        print("each target is the best in its own metric:", own)
        print("latency and throughput differ:", differ(made["latency"], made["throughput"]))
        found += mine
        save(arguments.json, found)
        if number == 0 and arguments.svg is not None:
            one = made["latency"]
            shown = simulate(
                made, one, Load(requests=8, in_flight=1), window_us=shown_window(one, ())
            )
            write_gantt(shown.bars, arguments.svg, title=f"{model}, one request at a time: latency")


if __name__ == "__main__":
    main()
