"""Spikes before the design of multi-exit networks: what two pinned workers, a hand-over and a stop check cost.

``PYTHONPATH=bench python -m exits.spikes --json bench/results/exits_spikes.json``: on networks
as in :mod:`exits.deep_networks`,

- the time of a network on a pinned worker of one thread while another one runs it as well, over that alone;
- the time of a signal from one pinned worker to another, which sleeps until then, and back;
- the time of a network whose token is never cancelled, over that without a token;
- the time of a network on PoCL that may use one core, and the cores that its threads may use: the emulated device.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import layoutsel
from exits.branches import figures
from exits.deep_networks import DeepNetwork, made
from layoutsel.benchmarking.compare import save
from layoutsel.device.cancellation import CancelToken
from layoutsel.device.entry_points import StageChain
from layoutsel.device.machine import this_machine
from layoutsel.device.stage_worker import TensorWorker
from layoutsel.device.threads import available_cores
from layoutsel.device.worker import Worker
from layoutsel.device.worker_machines import Machines
from layoutsel.exits.arrangement import WorkerKind
from layoutsel.exits.corun import corun_slowdown
from layoutsel.exits.signals import give, unset_signal
from layoutsel.runtime.arrays import to_tensor
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.samples import random_inputs
from tvm_passes.opencl import plugin as opencl

ROUNDS = 2000
"""Number of signals."""
PAUSE_S = 0.0005
"""Sleep of the giver before a signal, so that the other worker sleeps as well, seconds."""
REPEATS, RUN_S = 5, 2.0
"""Number of measurements of the slowdown, and duration of the comparison with tokens, seconds."""
LIMIT_S = 60.0
MEMORY_BYTES = 8 << 30
NETWORKS: Mapping[str, DeepNetwork] = {
    "small layers": DeepNetwork(
        size=(1, 512), kernel=(1, 3), stages=((16, 30),), exits=(10,), branch=10
    ),
    "large layers": DeepNetwork(
        size=(48, 48), kernel=(3, 3), stages=((32, 4), (64, 4)), exits=(3,), branch=2
    ),
}


def pinned(model: CompiledModel, place: int) -> TensorWorker:
    """Worker of one thread on one core."""
    return model.worker(threads=1, cores=[available_cores()[place]], limit_s=LIMIT_S)


def corun(model: CompiledModel) -> dict[str, Any]:
    """Slowdown of two pinned workers by each other."""
    one, other = (WorkerKind(name=name, unit="cpu", threads=1, cores=1) for name in "ab")
    found = [corun_slowdown(one, model, other, model) for _ in range(REPEATS)]
    return {"slowdown": statistics.median(found), "least": min(found), "most": max(found)}


def hand_over(model: CompiledModel) -> dict[str, Any]:
    """Times of signals from one worker to another that sleeps, and of the way there and back."""
    there = [unset_signal() for _ in range(ROUNDS)]
    back = [unset_signal() for _ in range(ROUNDS)]
    given_s, taken_s, ended_s = (np.zeros(ROUNDS) for _ in range(3))

    def giver(_machines: Machines) -> None:
        for number in range(ROUNDS):
            time.sleep(PAUSE_S)
            given_s[number] = time.perf_counter()
            give(there[number])
            back[number].acquire(timeout=LIMIT_S)
            ended_s[number] = time.perf_counter()

    def taker(_machines: Machines) -> None:
        for number in range(ROUNDS):
            there[number].acquire(timeout=LIMIT_S)
            taken_s[number] = time.perf_counter()
            give(back[number])

    with pinned(model, 0) as first, pinned(model, 1) as second:
        runs = second.submit("taker", taker), first.submit("giver", giver)
        for run in runs:
            run.result(LIMIT_S)
    return {
        "one_way": figures(1e6 * (taken_s - given_s)),
        "there_and_back": figures(1e6 * (ended_s - given_s)),
    }


def stop_check(model: CompiledModel) -> dict[str, Any]:
    """Time of runs with a token that is never cancelled, against runs without one, in turns."""
    chain = StageChain.of(model.stages, range(len(model.stages)))
    named = {f"input.{n}": value for n, value in enumerate(random_inputs(model.inputs))}
    tensors = [to_tensor(named[one.name]) for one in chain.inputs]
    token = CancelToken()

    def work(machines: Machines) -> tuple[list[float], list[float]]:
        with_token, without = (machines.function(chain, is_watched=is_) for is_ in (True, False))

        def watched() -> None:
            with machines.watching(token):
                with_token(*tensors)

        runs = (watched, partial(without, *tensors))
        times: tuple[list[float], list[float]] = ([], [])
        for run in 2 * runs:  # the first is recorded
            run()
        end_s = time.monotonic() + RUN_S
        while time.monotonic() < end_s:
            for run, some in zip(runs, times, strict=True):
                start_s = time.perf_counter()
                run()
                some.append(1e6 * (time.perf_counter() - start_s))
        return times

    with pinned(model, 0) as worker:
        watched_us, plain_us = map(np.array, worker.submit("runs", work).result(LIMIT_S))
    checks = token.begun / (len(watched_us) + 2)
    more_us = float(np.median(watched_us) - np.median(plain_us))
    return {
        "with_token": figures(watched_us),
        "without": figures(plain_us),
        "checks": checks,
        "overhead": more_us / float(np.median(plain_us)),
        "ns_per_check": 1e3 * more_us / checks,
    }


def confined(task: Mapping[str, Any]) -> dict[str, Any]:
    """Run a network on the first OpenCL device in this process; for a child process.

    The driver's threads inherit the affinity of the thread that starts them.
    """
    cores = list(task["cores"])
    os.sched_setaffinity(0, cores)
    known = set(_threads())
    model = layoutsel.load(task["artifact"])
    inputs = random_inputs(model.inputs)
    for _ in range(3):
        model(*inputs)
    times = []
    processor_s = time.process_time()
    start_s = time.perf_counter()
    while time.perf_counter() < start_s + RUN_S:
        before_s = time.perf_counter()
        model(*inputs)
        times.append(1e6 * (time.perf_counter() - before_s))
    busy = (time.process_time() - processor_s) / (time.perf_counter() - start_s)
    started = set(_threads()) - known
    return {
        "times": figures(np.array(times)),
        "busy_cores": busy,
        "driver_threads": len(started),
        "their_cores": sorted({core for one in started for core in os.sched_getaffinity(one)}),
    }


def _threads() -> Iterator[int]:
    """Yield the threads of this process."""
    return (int(one.name) for one in Path("/proc/self/task").iterdir())


def pocl(file: Path) -> dict[str, Any]:
    """Figures of a network on PoCL on all cores and on one, or the reason for their absence."""
    if not opencl.devices():
        return {"skipped": f"no OpenCL device: {opencl.available() or 'no driver'}"}
    try:
        plan = layoutsel.plan(file, units=["opencl"], cost="roofline")
        model = layoutsel.compile_plan(file, plan)
    except layoutsel.LayoutselError as error:
        return {"skipped": f"the network cannot be compiled for OpenCL: {error}"}
    artifact = file.with_suffix(".so")
    model.save(artifact)
    found: dict[str, Any] = {"label": "emulated device"}
    last = available_cores()[-1]
    for name, cores in (("all_cores", available_cores()), ("one_core", (last,))):
        with Worker(
            "exits.spikes:confined", time_limit_s=LIMIT_S, memory_bytes=MEMORY_BYTES
        ) as worker:
            reply = worker.call({"artifact": str(artifact), "cores": tuple(cores)})
        found[name] = getattr(reply, "value", None) or {"skipped": str(reply)}
    return found


def rows() -> Iterator[dict[str, Any]]:
    """Figures of all spikes."""
    with tempfile.TemporaryDirectory() as made_in:
        for name, network in NETWORKS.items():
            file = Path(made_in) / f"{name}.onnx"
            onnx.save(made(network), file)
            model = layoutsel.compile_plan(file, layoutsel.plan(file, threads=1), verify=False)
            if len(available_cores()) > 1:
                yield {"spike": "two pinned workers", "network": name, **corun(model)}
            yield {"spike": "stop check that never stops", "network": name, **stop_check(model)}
        if len(available_cores()) > 1:
            yield {"spike": "hand-over between pinned workers", **hand_over(model)}
        yield {"spike": "PoCL on one core", "network": name, **pocl(file)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    found = []
    for row in rows():
        print(row, flush=True)
        found.append({**row, "machine": this_machine().fingerprint})
        save(asked.json, found)


if __name__ == "__main__":
    main()
