"""Did a change of the compiler change its plans, its results or its times? Two installations, model by model in turns.

``python bench/before_after.py BEFORE/bin/python AFTER/bin/python light:resnet50 … --json bench/results/foundation.json``.
A process of each installation compiles the model by the learned cost model, without a race, so that the plan depends on
nothing that is measured. Then both run on the same inputs by turns. A ratio is the time before over the time after.
"""

from __future__ import annotations

import argparse
import base64
import json
import subprocess
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np

from layoutsel.benchmarking.compare import save

ROUNDS, RUNS = 15, 10
LIMIT_S = 900.0

WORKER = """
import base64, json, sys, time
import numpy as np
model, threads = sys.argv[1], int(sys.argv[2])
say = sys.stdout
sys.stdout = sys.stderr
import layoutsel
start = time.perf_counter()
built = layoutsel.optimize(model, cost="learned", threads=threads, verify_speed=False)
seconds = time.perf_counter() - start
plan = built.plan
rng = np.random.default_rng(0)
feeds = [rng.standard_normal(one.shape).astype(one.dtype) for one in built.inputs]
call = getattr(built, "run_all", None) or built.run
results = [np.array(one) for one in call(feeds)]
digest = [base64.b64encode(one.astype("float32").tobytes()).decode() for one in results]
decisions = [entry["decision"] for entry in plan["subgraphs"]]
print(json.dumps({"compile_s": seconds, "decisions": decisions, "cost_us": plan["cost_us"] if "cost_us" in plan
    else plan["values"]["sum"]["value"], "results": digest}), file=say, flush=True)
for line in sys.stdin:
    times = []
    for _ in range(int(line)):
        start = time.perf_counter()
        call(feeds)
        times.append(1e6 * (time.perf_counter() - start))
    print(json.dumps(times), file=say, flush=True)
"""
"""Program of a process: it knows of the package what both versions have."""


class Side:
    """A process of one installation with a compiled model."""

    def __init__(self, python: str, model: str, threads: int) -> None:
        self._python = python
        command = ["timeout", str(LIMIT_S), python, "-c", WORKER, model, str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.built: dict[str, Any] = self._reply()

    def _reply(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the process ended: {self._python}")
        return json.loads(line)

    def times_us(self, runs: int) -> list[float]:
        """Time `runs` runs, microseconds each."""
        assert self._process.stdin is not None
        print(runs, file=self._process.stdin, flush=True)
        return list(self._reply())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


def _results(side: Side) -> list[np.ndarray]:
    return [np.frombuffer(base64.b64decode(one), "float32") for one in side.built["results"]]


def _error(before: Side, after: Side) -> float:
    pairs = zip(_results(before), _results(after), strict=True)
    return max(float(np.linalg.norm(a - b) / max(np.linalg.norm(a), 1e-30)) for a, b in pairs)


def row(before_python: str, after_python: str, model: str, threads: int) -> dict[str, Any]:
    """Compare both installations on one model."""
    before, after = (Side(one, model, threads) for one in (before_python, after_python))
    ratios, times = [], []
    for number in range(ROUNDS + 1):
        order = (before, after) if number % 2 else (after, before)
        taken = {side: median(side.times_us(RUNS)) for side in order}
        mine, theirs = taken[before], taken[after]
        if number:  # the first round warms up
            ratios.append(mine / theirs)
            times.append(theirs)
    low, _, high = quantiles(ratios, n=4)
    one, other = before.built["decisions"], after.built["decisions"]
    found = {
        "model": model,
        "threads": threads,
        "ratio_before_over_after": round(median(ratios), 4),
        "ratio_quartiles": [round(low, 4), round(high, 4)],
        "median_us_after": round(median(times), 1),
        "subgraphs": [len(one), len(other)],
        "same_decisions": sum(a == b for a, b in zip(one, other, strict=False)),
        "predicted_us": [round(side.built["cost_us"], 1) for side in (before, after)],
        "rel_l2_difference": _error(before, after),
        "compile_s": [round(side.built["compile_s"], 1) for side in (before, after)],
    }
    before.close()
    after.close()
    return found


def main() -> None:
    """Compare model by model; the result is saved after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    found = []
    for model in given.models:
        found.append(row(given.before, given.after, model, given.threads))
        print(json.dumps(found[-1]), flush=True)
        save(given.json, found)


if __name__ == "__main__":
    main()
