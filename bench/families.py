"""Where does the time of a network go? By family of operators, beside ONNX Runtime and OpenVINO, and the ceiling.

``python bench/families.py zoo:deit_tiny zoo:swinv2_tiny … --json bench/results/families.json``. Every engine runs in
turns, with and without its own profiler: layoutsel's trace, ONNX Runtime's profile, OpenVINO's ``PERF_COUNT``. The
ceiling of a sub-graph is the time of its multiply-adds at the machine's peak, of its weights at the speed of memory,
or of its activations at the speed of caches, whichever is longest; these rates are measured in the same turns. Layout
changes have a ceiling of none: producers and consumers can absorb them. ``--quick`` plans by the learned cost model
without a race. ``--nodes N`` also prints the N slowest kernels of each engine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ceilings import multiply_adds, stream
from script import arguments_of
from time_by_family.families import FAMILIES, LAYOUT
from time_by_family.ours import Peaks, Traced, families
from time_by_family.peers import Node, Profiled, profiled_onnxruntime, profiled_openvino

import layoutsel
from layoutsel.benchmarking.cases import case_name, write_case
from layoutsel.benchmarking.compare import save
from layoutsel.compile.session import Session
from layoutsel.device.threads import set_threads
from layoutsel.report import terminal
from layoutsel.report.plan_tables import new_table
from tvm_passes.targets import for_threads

ROUNDS, RUNS = 8, 5
SETTLE_S = 0.02
"""Pause between engines, in which the threads of the previous one stop spinning, seconds."""
CACHED_BYTES, CACHED_TIMES = 1 << 20, 256
"""Bytes that caches of all threads hold, and readings of them in one measurement."""
ENGINES = ("layoutsel", "onnxruntime", "openvino")


def profiled(model: str, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Profile one network on every engine; returns kernels, whole times and ceilings."""
    threads = arguments.threads
    case = write_case(model, None, folder)
    session = Session.open(str(case.model), threads=threads)
    family = families(session)
    quick = {"cost": "learned", "verify_speed": False} if arguments.quick else {}
    built = layoutsel.optimize(str(case.model), threads=threads, **quick)
    inputs = built.bind(**case.inputs)
    traced = Traced.of(built, inputs, family)
    engines = {
        "layoutsel": Profiled(built.timed_call(inputs), traced.run, traced.nodes),
        "onnxruntime": profiled_onnxruntime(case.model, case.inputs, threads, folder),
        "openvino": profiled_openvino(case.model, case.inputs, threads),
    }
    measures = {
        "gflops": multiply_adds(threads),
        "memory_gbps": stream(threads),
        "cache_gbps": stream(threads, CACHED_BYTES, CACHED_TIMES),
    }
    rates: dict[str, list[float]] = {name: [] for name in measures}

    def note_rates() -> None:
        for name, measure in measures.items():
            rates[name].append(measure())

    whole = _race({name: engine.run for name, engine in engines.items()}, note_rates)
    _race({name: engine.run_profiled for name, engine in engines.items()}, note_rates)
    peaks = Peaks(**{name: statistics.median(found) for name, found in rates.items()})
    ceilings = {
        one.id: 0.0 if family[one.id] == LAYOUT else peaks.ceiling_us(one)
        for one in session.graph.subgraphs
    }
    return {
        "nodes": {name: list(engine.nodes()) for name, engine in engines.items()},
        "whole": whole,
        "ceiling": {
            one: sum(us for id_, us in ceilings.items() if family[id_] == one) for one in FAMILIES
        },
        "peaks": peaks,
    }


def _race(
    calls: Mapping[str, Callable[[], object]], between: Callable[[], None]
) -> dict[str, float]:
    """Median time of each function in turns, microseconds; `between` runs once a turn."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(ROUNDS):
        between()
        for name in list(calls)[:: -1 if round_ % 2 else 1]:
            time.sleep(SETTLE_S)
            calls[name]()
            for _ in range(RUNS):
                start = time.perf_counter()
                calls[name]()
                times[name].append(1e6 * (time.perf_counter() - start))
    return {name: statistics.median(found) for name, found in times.items()}


def rows(model: str, found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One row per family with work, and one for the whole network."""
    for family in FAMILIES:
        parts = {
            name: [node.us for node in nodes if node.family == family]
            for name, nodes in found["nodes"].items()
        }
        if any(parts.values()):
            yield {
                "model": case_name(model),
                "family": family,
                **{f"{name}_us": round(sum(us), 1) for name, us in parts.items()},
                **{f"{name}_kernels": len(us) for name, us in parts.items()},
                "ceiling_us": round(found["ceiling"][family], 1),
            }
    peaks = found["peaks"]
    yield {
        "model": case_name(model),
        "family": "whole network",
        **{f"{name}_us": round(us, 1) for name, us in found["whole"].items()},
        **{f"{name}_kernels": len(nodes) for name, nodes in found["nodes"].items()},
        "ceiling_us": round(sum(found["ceiling"].values()), 1),
        "gflops": round(peaks.gflops, 1),
        "memory_gbps": round(peaks.memory_gbps, 1),
        "cache_gbps": round(peaks.cache_gbps, 1),
    }


def show(made: Sequence[Mapping[str, Any]]) -> None:
    """Print the rows of one network, and how far layoutsel is from the faster peer and the ceiling."""
    numbers = (*(f"{name} µs (kernels)" for name in ENGINES), "ceiling µs", "lost µs", "attained")
    table = new_table("family", *numbers, right=numbers, title=made[0]["model"])
    for row in made:
        times = [row[f"{name}_us"] for name in ENGINES]
        cells = [f"{row[f'{name}_us']:.0f} ({row[f'{name}_kernels']})" for name in ENGINES]
        attained = f"{row['ceiling_us'] / times[0]:.0%}" if times[0] and row["ceiling_us"] else ""
        table.add_row(
            row["family"],
            *cells,
            f"{row['ceiling_us']:.0f}",
            f"{times[0] - min(times[1:]):.0f}",
            attained,
        )
    terminal.show(table)


def _slowest(nodes: Mapping[str, Sequence[Node]], count: int) -> Iterator[str]:
    """Lines about the slowest kernels of each engine."""
    for name, own in nodes.items():
        for node in sorted(own, key=lambda one: -one.us)[:count]:
            yield f"{name}\t{node.us:.0f}\t{node.family}\t{node.name}"


def main() -> None:
    """Profile network by network; the result is saved after each."""
    parser = arguments_of(__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--nodes", type=int, default=0)
    arguments = parser.parse_args()
    made: list[dict[str, Any]] = []
    set_threads(arguments.threads)
    with for_threads(arguments.threads):
        for model in arguments.models:
            with tempfile.TemporaryDirectory() as folder:
                found = profiled(model, arguments, Path(folder))
            own = list(rows(model, found))
            show(own)
            for line in _slowest(found["nodes"], arguments.nodes):
                print(line, flush=True)
            made += own
            save(arguments.json, made)


if __name__ == "__main__":
    main()
