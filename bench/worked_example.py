"""One small network through all five parts: searched, given exits, distributed, planned, run and compared with predictions.

``PYTHONPATH=bench python bench/worked_example.py FOLDER --json bench/results/worked_example.json``. Three nodes are emulated on this
machine, one thread each: a busy terminal, a hub and a server. The folder keeps the search, which another run goes on with. Predictions
have the engine's own time with a controller, which this script does without.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx

from layoutsel import exits
from layoutsel.benchmarking.compare import save
from layoutsel.cluster.building import build
from layoutsel.cluster.distribution import Distributions
from layoutsel.cluster.emulation import Emulation
from layoutsel.cluster.engine import Announced, Work
from layoutsel.cluster.engine_probing import engine_between
from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.local_engine import LocalEngine
from layoutsel.cluster.segments import Segment, Transfer
from layoutsel.cluster.statistics import NodeState, Statistics
from layoutsel.cluster.topology import Header, Link, Node, Topology
from layoutsel.exits.policy import Policy
from layoutsel.exits.training.data import DataParts, load
from layoutsel.search.deploying import distributions_as_found
from layoutsel.search.early_exits import placed_with_exits, with_exits, write_with_exits
from layoutsel.search.found import TUNE, FoundNetwork
from layoutsel.search.joint.question import joint_question
from layoutsel.search.joint.search import CHECKPOINT, search_joint
from layoutsel.search.joint.tasks import Retraining, SharedTraining, TrainingSchedule
from layoutsel.search.joint.trainer import JointTrainer
from layoutsel.search.parts import parts_of
from layoutsel.search.run_folder import RunFolder

LIMIT_S = 60.0
"""Limit of an answer, seconds."""
MAX_DROP, CONFIDENCE = 0.02, 0.95
"""Certified drop of accuracy, and the confidence of the certificate."""
REQUESTS = 200
"""Samples of the test data that are answered and timed."""
PARTS = ("tune", "certify", "test")
"""Parts of the data that are observed: to choose thresholds, for the certificate, for the report."""


def topology() -> tuple[Topology, Statistics]:
    """A busy terminal in front of a hub, both with little memory, and a server."""
    found = Topology(
        directed=False,
        multigraph=False,
        graph=Header(schema_version=1, origin="terminal"),
        nodes=(
            Node(id="terminal", threads=1, memory_bytes=60e3),
            Node(id="hub", threads=1, memory_bytes=300e3),
            Node(id="server", threads=1),
        ),
        links=(
            Link(source="terminal", target="hub", gbps=0.005, rtt_us=1e3),
            Link(source="hub", target="server", gbps=0.02, rtt_us=2e3),
            Link(source="terminal", target="server", gbps=0.002, rtt_us=8e3),
        ),
    )
    busy = {"terminal": 0.9, "hub": 0.5}
    states = {name: NodeState(others_busy=share) for name, share in busy.items()}
    return found, Statistics(nodes=states)


def searched(folder: Path, epochs: int, queries: int) -> tuple[RunFolder, FoundNetwork]:
    """Parts 4 and 5: search networks with placements, and take the most accurate one that leaves its first node."""
    nodes, state = topology()
    folder.mkdir(parents=True, exist_ok=True)
    nodes.save(folder / "topology.json")
    state.save(folder / "statistics.json")
    question = joint_question(
        folder / "topology.json",
        statistics=folder / "statistics.json",
        epochs=epochs,
        queries=queries,
        networks=3,
        retrain_epochs=epochs // 2,
    )
    run = RunFolder.begin(folder / "run", question, folder)
    found = search_joint(run, print, threads=2)
    return run, max(found, key=lambda one: (len(one.nodes), one.accuracies[TUNE]))


def with_early_exits(run: RunFolder, found: FoundNetwork) -> tuple[Path, dict[str, str]]:
    """Part 3: train the network with an exit at the end of each node's parts; returns its file and the node of each part."""
    graph = parts_of(run.question.space, found.architecture)
    names = [part.name for part in graph.parts[:-1]]
    # At the end of each node's parts, and in the middle; none right in front of the final exit.
    ends = [a for a, b in pairwise(names) if found.placement[a] != found.placement[b]]
    after = tuple(dict.fromkeys((*ends, names[len(names) // 2])))
    task = SharedTraining(
        space=run.question.space,
        schedule=TrainingSchedule(epochs=int(run.question.settings["epochs"])),
        seed=run.question.seed,
        threads=2,
        checkpoint=str(run.path.resolve() / CHECKPOINT),
    )
    schedule = TrainingSchedule(
        epochs=int(run.question.settings["retrain_epochs"]), rate=5e-3, networks=1
    )
    with JointTrainer(task) as trainer:
        asked = Retraining(
            name="exits", architecture=found.architecture, schedule=schedule, exits=tuple(after)
        )
        made = trainer.retrained(asked, lambda _report: None)
    graph = with_exits(graph, after)
    file = run.path / "exits.onnx"
    onnx.save(write_with_exits(graph, made.weights), file)
    print(
        f"exits after {', '.join(after)}: {made.exits['test']} and {made.accuracies['test']:.3f} right on test samples"
    )
    return file, placed_with_exits(graph, found.placement)


def certified(file: Path, folder: Path, parts: DataParts) -> tuple[Policy, Mapping[str, float]]:
    """Part 3: thresholds with a certificate, and the share of requests that each exit answers, on samples to tune with."""
    for name in PARTS:
        samples = getattr(parts, name)
        np.savez_compressed(folder / f"{name}.npz", x=samples.inputs, labels=samples.labels)
    network = exits.read(file)
    tune, certify = (exits.observe(network, folder / f"{part}.npz") for part in PARTS[:2])
    policy = exits.calibrate(tune, max_drop=MAX_DROP, confidence=CONFIDENCE, proof=certify)
    sure = np.array([one is not None for one in policy.thresholds])
    least = np.array([np.inf if one is None else one for one in policy.thresholds])
    answers = np.where(sure, tune.scores >= least, False)
    answers[:, -1] = True
    first = Counter(np.argmax(answers, axis=1).tolist())
    return policy, {name: first[number] / len(answers) for number, name in enumerate(tune.exits)}


@dataclass(frozen=True)
class Stepper:
    """Runs the segments of a distribution in turn, and stops at the first sure exit."""

    engine: LocalEngine
    segments: tuple[Segment, ...]
    policy: Policy
    computed_us: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Times that the nodes report, by segment."""

    def answer(self, x: np.ndarray) -> tuple[int, int]:
        """Class of a sample, and the number of the exit that answers."""
        refs = dict(self.engine.put({"input.0": x}))
        for segment in self.segments:
            work = Work(
                segment=segment.id, node=segment.node, atoms=segment.atoms, outputs=segment.outputs
            )
            started = self.engine.start(work, {name: refs[name] for name in segment.inputs})
            self.computed_us[segment.id].append(started.times.result(LIMIT_S).compute_us)
            refs.update(started.outputs)
            for name in sorted(one for one in segment.outputs if one.startswith("output.")):
                logits = self.engine.fetch({name: refs[name]}).result(LIMIT_S)[name][0]
                number = int(name.rpartition(".")[2])
                shares = np.exp(logits - logits.max())
                least = self.policy.thresholds[number]
                if number == len(self.policy.thresholds) - 1 or (
                    least is not None and shares.max() / shares.sum() >= least
                ):
                    return int(logits.argmax()), number
        raise AssertionError("the final exit answers")


def expected_us(planned: Distributions, shares: Mapping[str, float]) -> float:
    """Predicted mean time: segments, messages and the engine up to the exit that answers, by its share of the requests."""
    (route,) = planned["latency"].routes
    engine, slowdown = planned.engine, planned.statistics.slowdown
    total, spent, origin = 0.0, engine.request_us - engine.segment_us, planned.topology.origin
    names = list(shares)

    def sent_us(one: Transfer) -> float:
        # The node that has sent a tensor waits, and its next call takes longer.
        is_made = not one.tensor.startswith("input.")
        return one.us + engine.message_us + is_made * engine.wake_us * slowdown(one.source)

    for segment in route.segments:
        arriving = [
            sent_us(one)
            for one in route.transfers
            if one.destination == segment.node and one.tensor in segment.inputs
        ]
        spent += segment.us + engine.segment_us + max(arriving, default=0.0)
        for output in sorted(one for one in segment.outputs if one.startswith("output.")):
            back = [
                sent_us(one)
                for one in route.transfers
                if one.tensor == output and one.destination == origin
            ]
            spent += sum(back)
            total += shares[names[int(output.rpartition(".")[2])]] * spent
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--queries", type=int, default=60)
    arguments = parser.parse_args()
    begin_s = time.perf_counter()
    run, found = searched(arguments.folder, arguments.epochs, arguments.queries)
    print(
        f"found {found.architecture.operations} over {', '.join(found.nodes)}: {found.predicted_us / 1e3:.2f} ms predicted"
    )
    file, placement = with_early_exits(run, found)
    data = load(run.question.space.data, run.question.seed)
    policy, shares = certified(file, arguments.folder, data)
    print("share of the requests that each exit answers:", json.dumps(shares))
    question = run.question
    planned = distributions_as_found(
        file,
        placement,
        question.topology,
        question.statistics,
        run.path,
        engine=engine_between(question.topology),
        cost="learned",
    )
    for name, plan in planned.plans.items():
        print(f"plan of {name}:", dict(Counter(str(one.decision) for one in plan.subgraphs)))
    artifacts = build(
        file, planned, arguments.folder / "artifacts", machines=run.path, cost="learned"
    )
    (route,) = planned["latency"].routes
    engine = LocalEngine(
        dict.fromkeys(planned.classes, 1),
        Emulation(MessageRoutes(question.topology, question.statistics)),
    )
    try:
        for node, name in planned.classes.items():
            engine.load(node, Announced.of(artifacts[name]), LIMIT_S)
        stepper = Stepper(engine, route.segments, policy)
        times, right, exits_used = [], 0, Counter[int]()
        for index in range(-5, REQUESTS):
            start_s = time.perf_counter()
            label, number = stepper.answer(
                data.test.inputs[index : index + 1] if index >= 0 else data.test.inputs[:1]
            )
            if index >= 0:
                times.append(1e6 * (time.perf_counter() - start_s))
                right += label == data.test.labels[index]
                exits_used[number] += 1
    finally:
        engine.close()
    measured_shares = {name: exits_used[number] / REQUESTS for number, name in enumerate(shares)}
    predicted, at_test = expected_us(planned, shares), expected_us(planned, measured_shares)
    row = {
        "operations": found.architecture.operations,
        "channels": found.architecture.channels,
        "placement": placement,
        "segments": [
            {
                "node": one.node,
                # A node that has waited for a message takes longer.
                "predicted_us": one.us
                + planned.engine.wake_us * planned.statistics.slowdown(one.node),
                "measured_us": _median(stepper.computed_us[one.id]),
            }
            for one in route.segments
        ],
        "searched_ms": found.predicted_us / 1e3,
        "certificate": None if policy.certificate is None else policy.certificate.bound,
        "shares": dict(shares),
        "measured_shares": measured_shares,
        "predicted_ms": predicted / 1e3,
        "predicted_at_measured_shares_ms": at_test / 1e3,
        "measured_ms": float(np.mean(times)) / 1e3,
        "measured_median_ms": float(np.median(times)) / 1e3,
        "error": predicted / float(np.mean(times)) - 1,
        "right": right / REQUESTS,
        "seconds": time.perf_counter() - begin_s,
    }
    print(json.dumps(row, indent=1))
    print(
        f"{REQUESTS} requests over {', '.join(dict.fromkeys(one.node for one in route.segments))}: "
        f"{100 * row['right']:.1f} % right, {row['measured_ms']:.2f} ms on average; predicted "
        f"{row['predicted_ms']:.2f} ms, {100 * row['error']:+.1f} %"
    )
    save(arguments.json, [row])


def _median(us: Sequence[float]) -> float | None:
    """Median; None for a segment that no request has reached."""
    return float(np.median(us)) if us else None


if __name__ == "__main__":
    main()
