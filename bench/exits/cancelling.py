"""Time from the answer of a branch until the trunk's worker is free, beside other work on the cores.

``PYTHONPATH=bench python -m exits.cancelling images FOLDER … --json bench/results/exits_cancelling.json``: requests to
networks of :mod:`exits.deep_networks` or of folders of ``layoutsel exits train``, with the branches on a worker beside the
trunk's. One early exit is always sure, and its answer stops the trunk. Requests in one call of the plugin count the time
until then; others are traced. The trunk's thread is free at the end of the sub-graph that the answer interrupts. The longest sub-graph is that of the plan, by times that were measured
without other work, and slowed down by the branch beside it. Requests whose trunk ended before the branch stop nothing, and
do not count. Two engines on one thread are stopped in the middle of all exits for comparison: ONNX Runtime by
``RunOptions.terminate``, OpenVINO by ``InferRequest.cancel``.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto

from exits.deep_networks import DEEP, made
from layoutsel import exits
from layoutsel.benchmarking.compare import save
from layoutsel.benchmarking.peers.openvino_peer import openvino_core
from layoutsel.device.core_load import COMPUTE, MEMORY, BusyProcess
from layoutsel.device.load_generators import generating
from layoutsel.device.machine import this_machine
from layoutsel.exits.arrangement import Arrangement, ExitCosts
from layoutsel.exits.costs import priced
from layoutsel.exits.executor import ExitModel
from layoutsel.exits.exit_code import compiled_for
from layoutsel.exits.measured_costs import measured
from layoutsel.exits.policy import Policy
from layoutsel.runtime.samples import random_inputs

TRUNK, BRANCH = "cpu-1", "cpu-1b"
LOADS: Mapping[str, tuple[BusyProcess, ...]] = {
    "idle": (),
    "half busy beside the trunk": (BusyProcess(core=0, kind=COMPUTE, duty=0.5),),
    "busy beside the trunk": (BusyProcess(core=0, kind=COMPUTE),),
    "busy beside the branches": (BusyProcess(core=1, kind=COMPUTE),),
    "memory stream beside the branches": (BusyProcess(core=1, kind=MEMORY),),
}
BAR_US = 100.0
"""Time that a stop may take in addition to a sub-graph, microseconds."""


def free_us(model: ExitModel, inputs: list[np.ndarray]) -> float | None:
    """Time from the answer until the trunk has stopped, microseconds; None if nothing was stopped."""
    answer = model(*inputs)
    counts = model.lane_counts()
    is_stopped = answer.cancelled and counts is not None
    return max(0.0, counts.trunk_after_ns / 1e3) if is_stopped else None


def traced_free_us(model: ExitModel, inputs: list[np.ndarray]) -> float | None:
    """The same for a trunk on a worker, by a trace of its stages."""
    answer, runs = model.trace(*inputs)
    trunk = [run for run in runs if run.worker == TRUNK]
    if not answer.cancelled:
        return None
    return max(0.0, trunk[-1].end_us - answer.us)


def longest_us(costs: ExitCosts, exit_: int) -> float:
    """Longest sub-graph of the trunk after the tap of an exit, beside a branch."""
    later = [us for stage in costs.trunk_us[TRUNK][exit_ + 1 :] for us in stage]
    return max(later) * costs.slowdown.get(f"{TRUNK}|{BRANCH}", 1.0)


def rows_of(name: str, requests: int) -> Iterator[dict[str, Any]]:
    """Rows of one network: one for each load and exit."""
    source = made(DEEP[name]) if name in DEEP else onnx.load(Path(name) / "net.onnx")
    name = Path(name).name
    network = exits.read(source)
    early = len(network.names) - 1
    network = network.with_policy(policy_of(early, 0))
    found = priced(network)
    compiled = compiled_for(network, found, 1, verify=False)
    found = replace(found, costs=measured(found.costs, {1: compiled}))
    inputs = random_inputs(compiled.inputs)
    branches = Arrangement(trunk=TRUNK, branches=(BRANCH,) * early)
    for exit_ in range(early):
        only = replace(
            branches, branches=tuple(BRANCH if e <= exit_ else None for e in range(early))
        )
        with ExitModel(
            compiled, network.names, only, policy_of(early, exit_), workers=found.costs.workers
        ) as model:
            free_us(model, inputs)
            stop_us = free_us if model.lane_counts() else traced_free_us
            for load, processes in LOADS.items():
                with generating(processes, limit_s=3600.0):
                    stop_us(model, inputs)
                    times = [stop_us(model, inputs) for _ in range(requests)]
                yield {
                    "network": name,
                    "engine": "layoutsel",
                    "exit": network.names[exit_],
                    "load": load,
                    **stopped(times, longest_us(found.costs, exit_)),
                }
    for engine, stops in (("onnxruntime", terminated_us), ("openvino", cancelled_us)):
        for load, processes in LOADS.items():
            with generating(processes, limit_s=3600.0):
                times = list(stops(source, requests))
            yield {"network": name, "engine": engine, "load": load, **stopped(times, None)}


def policy_of(early: int, exit_: int) -> Policy:
    """Policy by which one exit is always sure, and no earlier one."""
    return Policy(
        score="max_prob", thresholds=(*(0.0 if e == exit_ else None for e in range(early)), None)
    )


def stopped(times: list[float | None], longest: float | None) -> dict[str, Any]:
    """Percentiles of the times in microseconds, and the share within the bar."""
    known = np.array([one for one in times if one is not None])
    row: dict[str, Any] = {
        "requests": len(times),
        "stopped": len(known),
        "longest_subgraph_us": longest,
    }
    if len(known):
        row |= {f"p{share}_us": float(np.percentile(known, share)) for share in (50, 95, 99)}
        row["most_us"] = float(known.max())
        if longest is not None:
            row["within_bar"] = float((known <= longest + BAR_US).mean())
    return row


def terminated_us(source: ModelProto, requests: int) -> Iterator[float | None]:
    """Times from the request to stop until ONNX Runtime's run on one thread has returned."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        source.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (given,) = session.get_inputs()
    feed = {given.name: np.zeros(given.shape, np.float32)}
    start_s = time.perf_counter()
    for _ in range(5):
        session.run(None, feed)
    pause_s = (time.perf_counter() - start_s) / 15
    for _ in range(requests):
        run = onnxruntime.RunOptions()
        run.log_severity_level = 4
        ended_s: list[float] = []

        def work(run: onnxruntime.RunOptions = run, ended_s: list[float] = ended_s) -> None:
            try:
                session.run(None, feed, run)
            except Exception:  # it raises an error of its own kind
                ended_s.append(time.perf_counter())

        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(pause_s)
        asked_s = time.perf_counter()
        run.terminate = True
        thread.join(60.0)
        yield 1e6 * (ended_s[0] - asked_s) if ended_s else None


def cancelled_us(source: ModelProto, requests: int) -> Iterator[float | None]:
    """Times from the request to stop until OpenVINO's run on one thread has ended."""
    core = openvino_core()
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    model = core.compile_model(core.read_model(source.SerializeToString()), "CPU", settings)
    run = model.create_infer_request()
    (given,) = model.inputs
    feed = {0: np.zeros(tuple(given.shape), np.float32)}
    start_s = time.perf_counter()
    for _ in range(5):
        run.infer(feed)
    pause_s = (time.perf_counter() - start_s) / 15
    for _ in range(requests):
        run.start_async(feed)
        time.sleep(pause_s)
        asked_s = time.perf_counter()
        run.cancel()
        try:
            run.wait()
        except RuntimeError:  # it was stopped
            yield 1e6 * (time.perf_counter() - asked_s)
        else:
            yield None


def line(row: Mapping[str, Any]) -> str:
    """Line of a readable table."""
    if not row["stopped"]:
        return f"{row['network']:13} {row['engine']:12} {row.get('exit', ''):6} {row['load']:34} never stopped"
    text = f"p50 {row['p50_us']:8.1f}   p99 {row['p99_us']:8.1f}   most {row['most_us']:8.1f} µs"
    if row["longest_subgraph_us"] is not None:
        text += f"   longest sub-graph {row['longest_subgraph_us']:7.1f} µs   within the bar {row['within_bar']:.1%}"
    return (
        f"{row['network']:13} {row['engine']:12} {row.get('exit', ''):6} {row['load']:34} "
        f"{row['stopped']:5} of {row['requests']}   {text}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="+", help="names of deep networks, or folders")
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    rows = []
    for name in asked.networks:
        for row in rows_of(name, asked.requests):
            rows.append({**row, "machine": this_machine().fingerprint})
            print(line(row), flush=True)
        save(asked.json, rows)


if __name__ == "__main__":
    main()
