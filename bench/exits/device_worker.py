"""Trunk or branches on a device beside the host: overlap, cancelling, and answers that belong to their requests.

``PYTHONPATH=bench python -m exits.device_worker layers --unit opencl --json bench/results/exits_device_opencl.json``: *layers*,
or networks of :mod:`exits.deep_networks`, with ``--unit cuda`` on an NVIDIA GPU; no arrangement begins after ``--limit``
seconds. Each is planned and measured for one core of the host and the device, and then answers requests on four
arrangements and on that of the plan:

- the longest run of one worker during a run of the other, of whole requests: both compute at once;
- the time from an early answer until the trunk's worker has ended, and the sub-graphs that it had begun, of all;
- the times of requests without a sure exit, and with a sure first one;
- wrong results among requests with changing inputs that are answered early at random exits, against ONNX Runtime.

PoCL runs OpenCL on the host's own cores. It is an *emulated device*: such rows claim logic, overlap and cancelling alone,
and no speed.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from exits.deep_networks import DEEP, DeepNetwork, made
from layoutsel import exits
from layoutsel.benchmarking.compare import save
from layoutsel.device.machine import this_machine
from layoutsel.exits import request as request_module
from layoutsel.exits.arrangement import Arrangement
from layoutsel.exits.building import profiled
from layoutsel.exits.costs import PricedExits
from layoutsel.exits.executor import ExitModel
from layoutsel.exits.exit_code import ExitCode
from layoutsel.exits.network import ExitNetwork
from layoutsel.exits.patterns import SurePattern
from layoutsel.exits.planner import ExitProblem, plan_exits
from layoutsel.exits.policy import Policy
from layoutsel.exits.scores import RESULTS
from layoutsel.runtime.samples import random_inputs
from tvm_passes.devices import DeviceId, device_name

NETWORKS: Mapping[str, DeepNetwork] = {
    "layers": DeepNetwork(size=(24, 24), kernel=(3, 3), stages=((16, 12),), exits=(2, 6), branch=2),
    **DEEP,
}
EMULATED = "emulated device"
CLAIMS = "logic, overlap and cancelling; no speed"
CPU_NAMES = ("cpu", "pthread", "basic")
"""Beginnings of the names that PoCL gives a CPU."""
INPUTS = 6
"""Number of different inputs of the requests with random exits."""
LIMIT_S = 60.0
"""Time limit of a request, seconds."""


def kind_of(unit: str) -> dict[str, str]:
    """Name of the first device of a unit, and what its rows claim."""
    name = device_name(DeviceId.of_target(unit))
    if name.lower().startswith(CPU_NAMES):
        return {"device": name, "kind": EMULATED, "claims": CLAIMS}
    return {"device": name, "kind": "device"}


def arrangements(early: int, unit: str) -> Mapping[str, Arrangement]:
    """Arrangements by name."""
    there, here = f"{unit}-0", "cpu-1"
    return {
        "trunk alone on the host": Arrangement(trunk=here, branches=(None,) * early),
        "trunk alone on the device": Arrangement(trunk=there, branches=(None,) * early),
        "trunk on the device, branches on the host": Arrangement(
            trunk=there, branches=(here,) * early
        ),
        "trunk on the host, branches on the device": Arrangement(
            trunk=here, branches=(there,) * early
        ),
    }


def planned(network: ExitNetwork, found: PricedExits) -> Arrangement:
    """Arrangement of the plan if a quarter of the requests leaves at each exit."""
    early = len(network.names) - 1
    patterns = [SurePattern(exits=tuple(range(e, early)), samples=1) for e in range(early)]
    problem = ExitProblem(
        exits=network.names,
        costs=found.costs,
        policy=policy_of(early, *[0.0] * early),
        patterns=(*patterns, SurePattern(exits=(), samples=1)),
    )
    return plan_exits(problem).arrangement


def policy_of(early: int, *levels: float) -> Policy:
    return Policy(score="max_prob", thresholds=(*(levels or [None] * early), None))


def model_on(code: ExitCode, one: Arrangement, policy: Policy) -> ExitModel:
    names, kinds = code.network.names, code.found.costs.workers
    return ExitModel(code.of(one), names, one, policy, workers=kinds, limit_s=LIMIT_S)


def overlap_us(model: ExitModel, inputs: list[np.ndarray], requests: int) -> float:
    """Median over requests of the time for which two workers compute at once, microseconds."""
    found = []
    for _ in range(requests):
        _, runs = model.trace(*inputs)
        pairs = ((one, other) for one in runs for other in runs if one.worker < other.worker)
        found.append(
            sum(max(0.0, min(a.end_us, b.end_us) - max(a.start_us, b.start_us)) for a, b in pairs)
        )
    return float(np.median(found))


class Tokens:
    """Tokens of the requests within a block: that of the trunk comes first for each."""

    def __init__(self) -> None:
        self.made: list[Any] = []
        self._make = request_module.CancelToken

    def __enter__(self) -> Tokens:
        request_module.CancelToken = self._new  # type: ignore[assignment, misc]
        return self

    def __exit__(self, *_error: object) -> None:
        request_module.CancelToken = self._make  # type: ignore[misc]

    def _new(self) -> Any:
        self.made.append(self._make())
        return self.made[-1]


def cancelled(
    code: ExitCode, one: Arrangement, inputs: list[np.ndarray], requests: int
) -> dict[str, Any]:
    """Times from early answers until the trunk's worker is idle, and sub-graphs begun."""
    early = len(one.branches)
    with (
        Tokens() as tokens,
        model_on(code, one, policy_of(early, 0.0, *[1.0] * (early - 1))) as model,
    ):
        tokens.made.clear()
        model.all(*inputs)
        whole = tokens.made[0].begun
        idle_us, begun = [], []
        for _ in range(requests):
            tokens.made.clear()
            answer, runs = model.trace(*inputs)
            if answer.cancelled:
                end_us = max(run.end_us for run in runs if run.worker == one.trunk)
                idle_us.append(max(0.0, end_us - answer.us))
                begun.append(tokens.made[0].begun)
    kind = next(kind for kind in code.found.costs.workers if kind.name == one.trunk)
    row: dict[str, Any] = {"requests": requests, "early": len(begun), "subgraphs": whole}
    row["in_flight"] = kind.in_flight
    if begun:
        row |= {"most_begun": max(begun), "stopped": sum(n < whole for n in begun)}
        row |= {f"idle_p{share}_us": float(np.percentile(idle_us, share)) for share in (50, 99)}
    return row


def timed(model: ExitModel, inputs: list[np.ndarray], requests: int) -> dict[str, float]:
    """Median times of requests without a sure exit, and with a sure first one, microseconds."""
    named: dict[str, tuple[int, ...]] = {"none_sure_us": (), "first_sure_us": (0,)}
    return {
        name: float(np.median([model.forced(sure, inputs).us for _ in range(requests)]))
        for name, sure in named.items()
    }


def wrong(code: ExitCode, one: Arrangement, requests: int) -> dict[str, int]:
    """Results that are not those of ONNX Runtime for their own input, of early answers at random."""
    session = onnxruntime.InferenceSession(
        code.network.scored().SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (given,) = session.get_inputs()
    inputs = [random_inputs(code.on_host(1).inputs, seed) for seed in range(INPUTS)]
    wanted = [session.run(None, {given.name: each[0]})[::RESULTS] for each in inputs]
    draw, count = random.Random(0), 0
    early = len(one.branches)
    with model_on(code, one, policy_of(early)) as model:
        for _ in range(requests):
            index, exit_ = draw.randrange(INPUTS), draw.randrange(early + 1)
            answer = model.forced({exit_} - {early}, inputs[index])
            want = wanted[index][model.exits.index(answer.exit)]
            count += not np.allclose(answer.scores, want, rtol=1e-3, atol=1e-4)
    return {"random_requests": requests, "wrong": count}


def rows_of(name: str, unit: str, requests: int, end_s: float) -> Iterator[dict[str, Any]]:
    """Rows of one network, one for each arrangement, until a time of the monotonic clock."""
    network = exits.read(made(NETWORKS[name]))
    early = len(network.names) - 1
    network = network.with_policy(policy_of(early, *[0.0] * early))
    found = profiled(network, units=["cpu", unit], threads=1, cost="roofline")
    code = ExitCode(network=network, found=found, options={"verify": False})
    inputs = random_inputs(code.on_host(1).inputs)
    every = {**arrangements(early, unit), "as planned": planned(network, found)}
    for title, one in every.items():
        if time.monotonic() > end_s:
            return
        row: dict[str, Any] = {"network": name, "arrangement": title, "trunk": one.trunk}
        row |= {"branches": list(one.branches), **kind_of(unit)}
        with model_on(code, one, policy_of(early)) as model:
            row |= timed(model, inputs, requests)
            if one.is_beside:
                row["overlap_us"] = overlap_us(model, inputs, requests)
        if one.is_beside:
            row |= cancelled(code, one, inputs, requests) | wrong(code, one, 10 * requests)
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="+", choices=NETWORKS)
    parser.add_argument("--unit", default="opencl")
    parser.add_argument("--requests", type=int, default=50)
    parser.add_argument("--limit", type=float, default=240.0, help="seconds")
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    end_s = time.monotonic() + asked.limit
    rows = []
    for name in asked.networks:
        for row in rows_of(name, asked.unit, asked.requests, end_s):
            rows.append({**row, "machine": this_machine().fingerprint})
            print(*(f"{key}={value}" for key, value in row.items()), flush=True)
            save(asked.json, rows)


if __name__ == "__main__":
    main()
