"""Requests while load, link and rate change: how soon the distribution is the best one again, and at what cost.

``PYTHONPATH=bench python -m cluster.replanning light:squeezenet --json bench/results/replanning.json`` (root, about six
minutes). Emulated: two network namespaces on one machine, one core each, 1 Gbit/s. The network is planned for throughput
and deployed with re-planning. Other work comes to the second node and ends, the link becomes slow and fast again. For 10 s
after each change, requests come at a rate that one node attains; then as fast as possible, and the throughput is measured.
Afterwards re-planning stops, and two distributions run as long: the first node alone, and the one planned for the true
state. The better of them is the best plan. Answers are compared with those of the whole model.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import layoutsel
from cluster import two_nodes
from cluster.ray_nodes import INSECURE, acts, busy, converse, ray_nodes, share_folders
from cluster.two_nodes import NODES
from layoutsel import cluster
from layoutsel.benchmarking.cases import case_name
from layoutsel.cluster.deployed_network import DeployedNetwork
from layoutsel.cluster.deploying import deploy
from layoutsel.cluster.distribution import Distribution, Distributions
from layoutsel.cluster.events import RequestAnswered
from layoutsel.cluster.redistributing import redistribute
from layoutsel.cluster.replanning import Replanner
from layoutsel.cluster.statistics import LinkState, NodeState, Statistics
from layoutsel.cluster.topology import Topology
from layoutsel.runtime.samples import random_inputs

TARGET = "throughput"
SETTLE_S, MEASURE_S = 10.0, 8.0
"""Time after a change until the distribution must be the best one, and duration of a measurement."""
PACED = 0.3
"""Rate of the requests after a change, as a share of the first throughput."""
SAMPLES = 20
"""Number of different inputs."""
SLOW = "0.02 1.0"
"""Rate in Gbit/s and delay in ms of the slow link."""
FAST = "1.0 0.1"


@dataclass(frozen=True)
class State:
    """A state of nodes and link."""

    name: str
    changes: tuple[str, ...]
    """What the outer program does."""
    busy: float = 0.0
    """Share of the second node that other work takes."""
    gbps: float | None = None
    """Rate of the link; None as probed."""


STATES = (
    State("idle", ()),
    State("other work on srv", ("load on",), busy=0.5),
    State("idle again", ("load off",)),
    State("slow link", (f"link={SLOW}",), gbps=0.02),
    State("fast link again", (f"link={FAST}",)),
)


class Answers:
    """Answers of a deployed network, by their times."""

    def __init__(self, deployed: DeployedNetwork) -> None:
        self._deployed = deployed

    def ends_s(self, start_s: float, end_s: float) -> np.ndarray:
        """Times of the answers in an interval."""
        answers = (
            one for one in self._deployed.timeline.events if isinstance(one, RequestAnswered)
        )
        ends = np.array([one.start_s + 1e-6 * one.us for one in answers])
        return ends[(ends >= start_s) & (ends < end_s)]

    def rate_hz(self, start_s: float, end_s: float) -> float:
        """Throughput in an interval."""
        return len(self.ends_s(start_s, end_s)) / (end_s - start_s)

    def longest_gap_s(self, start_s: float, end_s: float) -> float:
        """Longest time without an answer in an interval."""
        return float(np.diff(self.ends_s(start_s, end_s), prepend=start_s, append=end_s).max())


class Script:
    """The course of the measurement: changes of the state, and what they lead to.

    Parameters
    ----------
    deployed
        Deployed network, which plans again on its own.
    known
        Distributions, to plan others from.
    """

    def __init__(self, deployed: DeployedNetwork, known: Distributions) -> None:
        self._deployed, self._known = deployed, known
        self._answers = Answers(deployed)
        self.rows: list[dict[str, Any]] = []
        self.pause_s = 0.0
        """Time between two requests; 0 for as fast as possible."""
        self.is_frozen = False
        """True while re-planning is stopped."""

    def steps(self) -> Generator[float, None, None]:
        """Durations of the steps: the requests go on during each."""
        yield SETTLE_S  # the observed times become known
        first_hz = yield from self._measured()
        for state in STATES:
            row: dict[str, Any] = {"state": state.name}
            self.rows.append(row)
            self.pause_s = 1 / (PACED * first_hz)
            yield 1.0
            for change in state.changes:
                ask(change)
            row["period_ms"] = round(1e3 * self.pause_s, 1)
            row["switches"] = yield from self._settled(time.monotonic())
            self.pause_s = 0.0
            yield 0.5
            row["throughput_hz"] = yield from self._measured()
            row["routes"] = routes(self._deployed.controller.epoch.distribution)
            self.is_frozen = True
            row["others_hz"] = {}
            for name, other in self._others(state):
                self._deployed.controller.switch(other)
                yield 1.0
                row["others_hz"][name] = yield from self._measured()
            self.is_frozen = False
            row["share_of_best"] = round(row["throughput_hz"] / max(row["others_hz"].values()), 3)

    def _settled(self, start_s: float) -> Generator[float, None, list[dict[str, float]]]:
        """Wait for the reaction to a change; returns the switches, with the gaps around them."""
        number, found = self._deployed.controller.epoch.number, []
        while (now_s := time.monotonic()) < start_s + SETTLE_S:
            if self._deployed.controller.epoch.number != number:
                number = self._deployed.controller.epoch.number
                yield 1.0
                gap_s = self._answers.longest_gap_s(now_s - 1.0, now_s + 1.0)
                before_s = self._answers.longest_gap_s(now_s - 3.0, now_s - 1.0)
                found.append(
                    {
                        "after_s": round(now_s - start_s, 2),
                        "longest_gap_ms": round(1e3 * gap_s, 1),
                        "longest_gap_before_ms": round(1e3 * before_s, 1),
                    }
                )
            yield 0.02
        return found

    def _measured(self) -> Generator[float, None, float]:
        start_s = time.monotonic()
        yield MEASURE_S
        return round(self._answers.rate_hz(start_s, start_s + MEASURE_S), 2)

    def _others(self, state: State) -> Iterator[tuple[str, Distribution]]:
        """Distributions that do not change; the one that the next state begins with is the last."""
        link = self._known.topology.links[0]
        now = Statistics(
            nodes={NODES[1]: NodeState(others_busy=state.busy)},
            links=(
                LinkState(source=link.source, target=link.target, gbps=state.gbps or link.gbps),
            ),
        )
        alone = redistribute(self._known, Statistics(), lost=[NODES[1]])
        yield f"{NODES[0]} alone", alone[TARGET]
        yield "planned", redistribute(self._known, now)[TARGET]


def routes(distribution: Distribution) -> list[list[Any]]:
    """Weights and segments of routes, for reading."""
    return [
        [round(one.weight, 3), *(f"{s.node}: {len(s.atoms)} atoms" for s in one.segments)]
        for one in distribution.routes
    ]


def ask(what: str) -> Any:
    """Have the outer program do something."""
    print(json.dumps({"ask": what}), flush=True)
    return json.loads(sys.stdin.readline())


def requests(script: Script, samples: list[Any], most: int) -> Iterator[Any]:
    """Inputs for the time of the script, and until there were as many as asked for."""
    steps = script.steps()
    until_s = time.monotonic() + next(steps)
    is_over = False
    for number in itertools.count():
        while not is_over and time.monotonic() >= until_s:
            duration_s = next(steps, None)
            is_over = duration_s is None
            until_s = time.monotonic() + (duration_s or 0.0)
        if is_over and number >= most:
            return
        if script.pause_s:
            time.sleep(script.pause_s)
        yield samples[number % SAMPLES]


def drive(folder: Path, most: int) -> None:
    """Measure, as Ray's driver on the first node."""
    known = Distributions.load(folder / "planned.json")
    artifact = folder / "network.so"
    alone = layoutsel.load(artifact)
    samples = [random_inputs(alone.inputs, seed=seed) for seed in range(SAMPLES)]
    expected = [alone.run_all(one)[: len(alone.outputs)] for one in samples]
    artifacts = dict.fromkeys(known.plans, artifact)
    count = wrong = 0
    with deploy(known, TARGET, artifacts, engine="ray", security=INSECURE) as deployed:
        script = Script(deployed, known)
        again = Replanner(
            known, lambda: deployed.controller.epoch.distribution, deployed.attained_hz
        )
        deployed.watch(lambda now: None if script.is_frozen else again(now))
        start_s = time.monotonic()
        for answer in deployed.stream(requests(script, samples, most)):
            found = answer if isinstance(answer, tuple) else (answer,)
            wrong += not all(map(np.array_equal, found, expected[count % SAMPLES]))
            count += 1
        result = {
            "requests": count,
            "wrong": wrong,
            "lost": deployed.counts["failures"],
            "counts": dict(deployed.counts),
            "epochs": deployed.controller.epoch.number,
            "seconds": round(time.monotonic() - start_s, 1),
            "states": script.rows,
        }
    print(json.dumps({"result": result}), flush=True)


def measure(model: str, folder: Path, most: int) -> dict[str, Any]:
    """Probe the link, plan, compile and run."""
    with ray_nodes() as emulation, busy(emulation.nodes[-1]) as load:
        first = emulation.nodes[0]
        answers = acts(emulation) | load
        answers["link"] = lambda state: emulation.tell(f"link {state}")
        converse(first, [two_nodes.__file__, "--driver", "probe", "--folder", folder], answers, 300)
        probed = Topology.load(folder / "topology.json")
        planned = cluster.distribute(model, probed, targets=[TARGET], cost="auto")
        planned.save(folder / "planned.json")
        (plan,) = planned.plans.values()
        layoutsel.compile_plan(model, plan).save(folder / "network.so")
        program = [Path(__file__), "--driver", str(most), "--folder", folder]
        return converse(first, program, answers, 1800)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--driver", type=int)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    if asked.driver:
        return drive(asked.folder, asked.driver)
    share_folders()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        found = measure(asked.model, Path(name), asked.requests)
    result = {
        "emulated": "two network namespaces on one machine, one core each",
        "load_average": before,
        "model": case_name(asked.model),
        **found,
    }
    asked.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
