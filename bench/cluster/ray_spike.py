"""Is Ray fit to carry tensors between nodes? Cost of a hop, of an idle node, and of faults.

``python bench/cluster/ray_spike.py --json bench/results/ray_spike.json`` (root). Two emulated nodes, one core each. A hop
by *references*: an actor's result stays where it is, and the next actor fetches it. A hop by *push*: the array travels
inside the call, up to ``RAY_max_direct_call_object_size``. The program starts itself again on one node as Ray's driver.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BIN = Path(sys.executable).parent
PORT = 6379
SIZES = {"1 KiB": 1 << 10, "1 MiB": 1 << 20, "10 MiB": 10 << 20}
LINKS = {"1 Gbit/s": (1.0, 0.1), "no limit": (0.0, 0.0)}
"""Gbit/s and delay in each direction, milliseconds."""
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_automatic_object_spilling_enabled": "0",
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "500",
    "RAY_health_check_failure_threshold": "3",
    "RAY_AUTH_MODE": "disabled",
    "OMP_NUM_THREADS": "1",
}
PUSH = {
    "RAY_max_direct_call_object_size": str(16 << 20),
    "RAY_task_rpc_inlined_bytes_limit": str(64 << 20),
}
"""Settings under which arrays travel inside calls."""
LIMIT_S = 30.0


class Echo:
    """An actor that hands its array on."""

    def echo(self, array: np.ndarray) -> np.ndarray:
        """A new array, as a computation would give one."""
        return array + 1

    def last(self, array: np.ndarray) -> int:
        """Take an array and give nothing back."""
        return array.nbytes

    def sleep(self, seconds: float) -> None:
        """Be busy."""
        time.sleep(seconds)

    def bounce(self, peer: Any, array: np.ndarray, runs: int) -> list[float]:
        """Round trips of an array to another actor and back, microseconds."""
        import ray

        found = []
        for _ in range(runs):
            start = time.perf_counter()
            ray.get(peer.echo.remote(array), timeout=LIMIT_S)
            found.append(1e6 * (time.perf_counter() - start))
        return found


def timed(call: Callable[[], object], runs: int) -> dict[str, float]:
    """Median and ninth decile, microseconds."""
    found = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        found.append(1e6 * (time.perf_counter() - start))
    return spread(found)


def spread(found: list[float]) -> dict[str, float]:
    """Median and ninth decile."""
    return {
        "median_us": round(statistics.median(found), 1),
        "p90_us": round(statistics.quantiles(found, n=10)[-1], 1),
        "runs": len(found),
    }


def ask(what: str) -> Any:
    """Have the outer program do something, and wait for its answer."""
    print(json.dumps({"ask": what}), flush=True)
    return json.loads(sys.stdin.readline())


def actors() -> tuple[Any, Any, Any]:
    """Two actors on this node, and one on the other."""
    import ray

    echo = ray.remote(Echo)
    return tuple(
        echo.options(resources={node: 0.1}, num_cpus=0, max_restarts=-1).remote()
        for node in ("edge", "edge", "srv")
    )


def hops() -> dict[str, Any]:
    """Round trips edge → srv → edge, half of which is a hop, and edge → edge → edge."""
    import ray

    here, other, there = actors()
    found: dict[str, Any] = {}
    for link in LINKS:
        ask(f"link {link}")
        for name, size in SIZES.items():
            array, runs = np.ones(size, np.uint8), 30 if size > 1 << 20 else 100

            def chain(middle: Any, start: Any) -> None:
                ref = middle.echo.remote(here.echo.remote(start))
                ray.get(other.last.remote(ref), timeout=LIMIT_S)

            start = ray.put(array)
            for middle in (other, there):
                chain(middle, start)
            row: dict[str, Any] = {}
            row["chain, all on one node"] = timed(lambda: chain(other, start), runs)  # noqa: B023
            before = ask("cpu")
            row["chain over the other node"] = timed(lambda: chain(there, start), runs)  # noqa: B023
            after = ask("cpu")
            row["cpu_us_per_chain"] = used(before, after, runs)
            before = ask("cpu")
            got = ray.get(here.bounce.remote(there, array, runs), timeout=10 * LIMIT_S)
            row["actor to actor and back"] = spread(got)
            row["cpu_us_per_bounce"] = used(before, ask("cpu"), runs)
            found[f"{name}, {link}"] = row
    return found


def used(before: dict[str, float], after: dict[str, float], runs: int) -> dict[str, float]:
    """Processor time of each run on both nodes and of the relay, microseconds."""
    return {name: round(1e6 * (after[name] - before.get(name, 0)) / runs, 1) for name in after}


def faults() -> dict[str, Any]:
    """Seconds from a fault to the error that the caller sees, and to the next answer."""
    import ray

    ask("link 1 Gbit/s")
    found: dict[str, Any] = {}
    for fault, repairs in (
        ("kill worker", ()),
        ("cut", ("heal", "start node")),
        ("kill node", ("start node",)),
    ):
        _, _, there = actors()
        ray.get(there.last.remote(np.ones(8)), timeout=2 * LIMIT_S)
        busy = there.sleep.remote(LIMIT_S)
        time.sleep(1)
        start = time.monotonic()
        ask(fault)
        error = "none"
        try:
            ray.get(busy, timeout=LIMIT_S)
        except Exception as failed:
            error = type(failed).__name__
        row: dict[str, Any] = {"error": error, "error_s": round(time.monotonic() - start, 3)}
        for repair in repairs or ("",):
            if repair:
                ask(repair)
            row[f"answers after {repair or 'nothing'}, s"] = again_s = answers_again(there)
            if again_s is not None:
                break
        ray.kill(there)
        found[fault] = row
    return found


def answers_again(actor: Any) -> float | None:
    """Seconds to the next answer of an actor; None if there is none soon."""
    import ray

    start = time.monotonic()
    while time.monotonic() < start + LIMIT_S:
        try:
            ray.get(actor.last.remote(np.ones(8)), timeout=2)
            return round(time.monotonic() - start, 3)
        except Exception:
            time.sleep(0.1)
    return None


def driver(what: str) -> None:
    """Measure, as Ray's driver on node edge."""
    import logging

    import ray

    ray.init(address="auto", logging_level=logging.ERROR, log_to_driver=False)
    print(json.dumps({"result": {"hops": hops, "faults": faults}[what]()}), flush=True)
    ray.shutdown()


def start(emulation: Any, name: str) -> None:
    """Start Ray on a node."""
    head, *_ = emulation.nodes
    node = next(node for node in emulation.nodes if node.name == name)
    own = (
        ["--head", f"--port={PORT}", "--include-dashboard=false", "--disable-usage-stats"]
        if node is head
        else [f"--address={head.address}:{PORT}"]
    )
    own += ["--num-cpus=1", f"--resources={json.dumps({name: 1})}"]
    own += [f"--node-ip-address={node.address}", f"--object-store-memory={200 << 20}"]
    node.run([BIN / "ray", "start", *own], limit_s=120)


def outer(what: str, settings: dict[str, str]) -> dict[str, Any]:
    """Make the nodes, start Ray and run the driver, with faults at its command."""
    from nodes import emulated

    with emulated(environment=ENVIRONMENT | settings) as emulation:
        edge, srv = emulation.nodes
        for node in emulation.nodes:
            started = time.monotonic()
            start(emulation, node.name)
            print(f"{node.name}: Ray started in {time.monotonic() - started:.1f} s", flush=True)
        time.sleep(5)

        def cpu() -> dict[str, float]:
            by_node = {node.name: sum(node.cpu_s().values()) for node in emulation.nodes}
            return by_node | {"relay": emulation.tell("stats")["cpu_s"]}

        idle = idle_cost(emulation, cpu)
        inner = edge.popen(
            [sys.executable, __file__, "--driver", what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert inner.stdin is not None
        assert inner.stdout is not None
        acts: dict[str, Callable[[], Any]] = {
            "cpu": cpu,
            "kill worker": lambda: srv.kill("ray::Echo"),
            "kill node": srv.kill,
            "start node": lambda: start(emulation, "srv"),
            "cut": lambda: emulation.tell("cut"),
            "heal": lambda: emulation.tell("heal"),
        }
        for name, (gbps, delay_ms) in LINKS.items():
            acts[f"link {name}"] = lambda g=gbps, d=delay_ms: emulation.tell(f"link {g} {d}")
        for line in inner.stdout:
            if not line.startswith(b"{"):
                continue  # Ray's own words
            said = json.loads(line)
            if "result" in said:
                inner.wait(30)
                return {"idle": idle, what: said["result"]}
            print(said["ask"], flush=True)
            inner.stdin.write(json.dumps(acts[said["ask"]]()).encode() + b"\n")
            inner.stdin.flush()
    raise SystemExit("the driver ended without a result")


def idle_cost(emulation: Any, cpu: Callable[[], dict[str, float]]) -> dict[str, Any]:
    """Processor time and memory of the nodes without work."""
    before, seconds = cpu(), 15.0
    time.sleep(seconds)
    after = cpu()
    memory = {
        node.name: sum(one.memory_full_info().uss for one in node.processes()) >> 20
        for node in emulation.nodes
    }
    share = {name: round(100 * (after[name] - before[name]) / seconds, 2) for name in after}
    return {"cpu_percent_of_a_core": share, "own_memory_mib": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--driver", default="")
    arguments = parser.parse_args()
    if arguments.driver:
        return driver(arguments.driver)
    import ray
    from nodes import why_not

    if reason := why_not():
        raise SystemExit(reason)
    found: dict[str, Any] = {
        "emulated": "two network namespaces on one machine, one core each; a relay in user space "
        "shares the cores",
        "ray": ray.__version__,
        "links": {name: {"gbps": g, "delay_ms": d} for name, (g, d) in LINKS.items()},
        "settings": ENVIRONMENT,
    }
    parts: dict[str, Callable[[], Any]] = {
        "faults": lambda: outer("faults", {}),
        "references": lambda: outer("hops", {}),
        "push": lambda: {"settings": PUSH, **outer("hops", PUSH)},
    }
    for name, measure in parts.items():
        before = os.getloadavg()[0]
        found[name] = {"load_average": [before, 0.0], **measure()}
        found[name]["load_average"][1] = os.getloadavg()[0]
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
