"""Does any graph come out wrong, crash or hang? Random networks under random decisions, and mutated files.

``python bench/fuzz.py --seconds 600 --seed 0 --json bench/results/fuzz.json``. Every sub-graph of a random network gets a random
legal decision of any unit of this machine, or, in one graph of four, the planner decides; results are compared with ONNX
Runtime's, by the rule that verification uses. A failing graph is shrunk and kept below ``--keep``. Mutated files must be
refused by one clear error, or give the right results where ONNX Runtime takes them as well.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from fuzzing.graphs import random_graph
from fuzzing.mutate import mutated
from fuzzing.shrink import shrunk
from fuzzing.trial import FAILURES

from layoutsel.benchmarking.compare import save
from layoutsel.device.outcome import Failure
from layoutsel.device.worker import Worker

LIMIT_S = 120.0
"""Time of one trial: what takes longer hangs."""
PLANNED = 4
"""Of so many graphs, the planner decides one."""
NARROW = 5
"""Of so many graphs, one may compute in bfloat16."""
SAVE_EVERY = 50
"""Trials after which the result is saved, so that an interrupted run keeps its own."""
BAD = (*FAILURES, "died", "hung")


@dataclass
class Tally:
    """What was found so far."""

    graphs: Counter[str] = field(default_factory=Counter)
    files: Counter[str] = field(default_factory=Counter)
    units: Counter[str] = field(default_factory=Counter)
    """Decisions taken, by unit."""
    fell_back: int = 0
    """Graphs of which a sub-graph could not be built as decided."""
    worst_error: float = 0.0
    """Of the right ones in f32."""
    faults: list[dict[str, Any]] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    """First words of the errors by which random graphs were refused."""

    def add(self, case: dict[str, Any], found: dict[str, Any]) -> None:
        """Count the verdict of a trial."""
        table = self.graphs if case["kind"] == "graph" else self.files
        table[found["verdict"]] += 1
        self.units.update(decision.split(":")[0] for decision in found["decisions"].values())
        self.fell_back += bool(found["fell_back"])
        if found["verdict"] == "right" and case["precision"] == "f32":
            self.worst_error = max(self.worst_error, found["error"])
        if found["verdict"] == "refused" and case["kind"] == "graph":
            self.refusals[found["detail"][:80]] += 1

    @property
    def total(self) -> int:
        """Trials so far."""
        return self.graphs.total() + self.files.total()

    def row(self, seconds: float, seed: int) -> dict[str, Any]:
        """The result as it is saved."""
        return {
            "seed": seed,
            "seconds": round(seconds),
            "graphs": dict(self.graphs),
            "files": dict(self.files),
            "decisions": dict(sorted(self.units.items())),
            "graphs_that_fell_back": self.fell_back,
            "worst_rel_l2_err_f32": self.worst_error,
            "refusals_of_graphs": dict(self.refusals.most_common(20)),
            "faults": self.faults,
        }


def cases(seed: int, graphs: int, files: int) -> Iterator[dict[str, Any]]:
    """Graphs and mutated files by turns, each with all that its trial needs."""
    for number in range(max(graphs, files)):
        one = 1_000_003 * seed + number
        model = random_graph(one).SerializeToString()
        if number < graphs:
            yield {
                "kind": "graph",
                "seed": one,
                "model": model,
                "forced": number % PLANNED != 0,
                "precision": "bf16" if number % NARROW == 1 else "f32",
            }
        if number < files:
            changed = mutated(model, one)
            yield {
                "kind": "file",
                "seed": one,
                "model": changed,
                "forced": False,
                "precision": "f32",
            }


def tried(worker: Worker, case: dict[str, Any]) -> dict[str, Any]:
    """The verdict of a trial; a crash and a hang are verdicts, too."""
    reply = worker.call({key: case[key] for key in ("model", "seed", "forced", "precision")})
    if isinstance(reply, Failure):
        verdict = "hung" if "longer than" in reply.reason else "died"
        return {"verdict": verdict, "detail": reply.reason, "decisions": {}, "fell_back": []}
    return dict(reply.value)


def kept(
    worker: Worker, case: dict[str, Any], found: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """A fault as it is reported, its model (shrunk, where it is a sound one) written to `folder`."""
    data = case["model"]
    if case["kind"] == "graph" or found["verdict"] == "wrong":

        def fails(part: onnx.ModelProto) -> bool:
            again = tried(worker, {**case, "model": part.SerializeToString()})
            return bool(again["verdict"] == found["verdict"])

        small = shrunk(onnx.ModelProto.FromString(data), fails)
        data = small.SerializeToString()
        found = {**found, **tried(worker, {**case, "model": data})}
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{case['kind']}_{case['seed']}.onnx"
    (folder / name).write_bytes(data)
    fault = {key: case[key] for key in ("kind", "seed", "forced", "precision")}
    return {**fault, **{k: found[k] for k in ("verdict", "detail", "decisions")}, "file": name}


def main() -> None:
    """Try until the time or the numbers are spent; exit code 1 where a fault was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--graphs", type=int, default=2000)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-faults"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    start, tally = time.monotonic(), Tally()
    waiting = cases(given.seed, given.graphs, given.files)
    drawing = threading.Lock()

    def work(_job: int) -> None:
        with Worker("fuzzing.trial:run", time_limit_s=LIMIT_S) as worker:
            while time.monotonic() - start < given.seconds:
                with drawing:
                    case = next(waiting, None)
                if case is None:
                    return
                found = tried(worker, case)
                tally.add(case, found)
                if given.json is not None and tally.total % SAVE_EVERY == 0:
                    save(given.json, [tally.row(time.monotonic() - start, given.seed)])
                if found["verdict"] in BAD:
                    tally.faults.append(kept(worker, case, found, given.keep))
                    print(json.dumps(tally.faults[-1]), flush=True)

    with ThreadPoolExecutor(given.jobs) as jobs:
        list(jobs.map(work, range(given.jobs)))
    row = tally.row(time.monotonic() - start, given.seed)
    print(json.dumps({**row, "faults": len(tally.faults)}, indent=1))
    if given.json is not None:
        save(given.json, [row])
    raise SystemExit(1 if tally.faults else 0)


if __name__ == "__main__":
    main()
