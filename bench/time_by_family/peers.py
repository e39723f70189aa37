"""Times of the nodes of ONNX Runtime and OpenVINO, by their own profilers."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from layoutsel.benchmarking.peers.openvino_peer import openvino_core
from layoutsel.references.reference_engine import import_onnxruntime
from time_by_family.families import onnxruntime_family, openvino_family

Run = Callable[[], object]
"""Runs a model once."""


@dataclass(frozen=True)
class Node:
    """A kernel of an engine with its median time."""

    name: str
    """Name of the kernel."""
    family: str
    """Family of its work."""
    us: float
    """Median time of a run, microseconds."""


@dataclass(frozen=True)
class Profiled:
    """A model on an engine, with and without the engine's profiler."""

    run: Run
    """Runs once without the profiler."""
    run_profiled: Run
    """Runs once with the profiler."""
    nodes: Callable[[], Sequence[Node]]
    """Returns the kernels of the profiled runs so far; called once, at the end."""


def profiled_onnxruntime(
    file: Path, inputs: Mapping[str, np.ndarray], threads: int, folder: Path
) -> Profiled:
    """Load a model in ONNX Runtime twice, once with its profiler."""
    onnxruntime = import_onnxruntime()
    optimised = folder / "optimised.onnx"

    def session(*, is_profiled: bool) -> object:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if is_profiled:
            options.enable_profiling = True
            options.profile_file_prefix = str(folder / "onnxruntime")
            options.optimized_model_filepath = str(optimised)
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    plain, traced = session(is_profiled=False), session(is_profiled=True)
    feed = dict(inputs)

    def nodes() -> list[Node]:
        events = json.loads(Path(traced.end_profiling()).read_text())
        return _onnxruntime_nodes(events, onnx.load(optimised, load_external_data=False))

    return Profiled(lambda: plain.run(None, feed), lambda: traced.run(None, feed), nodes)


def _onnxruntime_nodes(events: Sequence[dict], model: onnx.ModelProto) -> list[Node]:
    """Kernels of a profile, with the families of the nodes of the optimised model."""
    weights = {tensor.name for tensor in model.graph.initializer}
    family: dict[str, str] = {}
    for node in model.graph.node:
        groups = next((int(a.i) for a in node.attribute if a.name == "group"), 1)
        constant = len(node.input) > 1 and node.input[1] in weights
        family[node.name] = onnxruntime_family(
            node.op_type, groups=groups, has_constant_matrix=constant
        )
    times: dict[str, list[float]] = defaultdict(list)
    operators: dict[str, str] = {}
    ending = "_kernel_time"
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(ending):
            name = event["name"].removesuffix(ending)
            times[name].append(float(event["dur"]))
            operators[name] = event["args"]["op_name"]
    return [
        Node(
            f"{operators[name]} {name}",
            family.get(
                name, onnxruntime_family(operators[name], groups=1, has_constant_matrix=True)
            ),
            statistics.median(found),
        )
        for name, found in times.items()
    ]


def profiled_openvino(file: Path, inputs: Mapping[str, np.ndarray], threads: int) -> Profiled:
    """Compile a model in OpenVINO twice, once with ``PERF_COUNT``."""
    import openvino

    def request(*, is_profiled: bool) -> object:
        config = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "PERF_COUNT": is_profiled,
        }
        return openvino_core().compile_model(str(file), "CPU", config).create_infer_request()

    plain, traced = request(is_profiled=False), request(is_profiled=True)
    feed = dict(inputs)
    times: dict[str, list[float]] = defaultdict(list)
    kinds: dict[str, str] = {}

    def run_profiled() -> None:
        traced.infer(feed, share_inputs=True, share_outputs=True)
        for one in traced.get_profiling_info():
            if one.status == openvino.ProfilingInfo.Status.EXECUTED:
                times[one.node_name].append(one.real_time.total_seconds() * 1e6)
                kinds[one.node_name] = f"{one.node_type} {one.exec_type}"

    def nodes() -> list[Node]:
        return [
            Node(
                f"{kinds[name]} {name}",
                openvino_family(kinds[name].split(" ", maxsplit=1)[0]),
                statistics.median(found),
            )
            for name, found in times.items()
        ]

    return Profiled(
        lambda: plain.infer(feed, share_inputs=True, share_outputs=True), run_profiled, nodes
    )
