"""Engines that answer samples of a stream one by one, each in its own process: ours, and others on hand-split segments."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from exits import hand_split
from layoutsel.benchmarking.peers.openvino_peer import openvino_core
from layoutsel.benchmarking.worker import be_quiet, guarded
from layoutsel.exits.policy import Policy
from layoutsel.exits.scores import RESULTS

STATIC = "layoutsel-static"
"""Engine of a network without exits."""
Answerer = Callable[[np.ndarray], tuple[int, int]]
"""Input of one sample → predicted class and number of the exit."""


@dataclass(frozen=True, kw_only=True)
class ExitJob:
    """A network for an engine to answer samples with."""

    scored: Path
    """ONNX file with values, score and class of each exit."""
    folder: Path
    """Folder of compiled models: ``chosen.so``, ``trunk.so``, …."""
    policy: Policy
    """Thresholds."""
    samples: Path
    """File of the samples: arrays ``x`` and ``labels``."""
    threads: int
    """Number of threads."""


def serve(connection: Connection, engine: str, job: ExitJob) -> None:
    """Load an engine, then answer turns: a request is a range of samples, the answer their times, classes and exits."""
    be_quiet()
    state: dict[str, Any] = {}

    def load() -> None:
        with np.load(job.samples) as arrays:
            state["x"] = arrays["x"]
        state["answer"] = ENGINES[engine](job)

    def turn(which: range) -> list[tuple[float, int, int]]:
        inputs, answer, found = state["x"], state["answer"], []
        for number in list(which)[:20]:  # warm-up
            answer(inputs[number : number + 1])
        for number in which:
            x = np.ascontiguousarray(inputs[number : number + 1])
            start = time.perf_counter()
            label, exit_ = answer(x)
            found.append((1e6 * (time.perf_counter() - start), label, exit_))
        return found

    first = guarded(load)
    connection.send(first)
    if first[0] == "error":
        return
    while (which := connection.recv()) is not None:
        connection.send(guarded(lambda which=which: turn(which)))
    connection.send(("done", None))


def _ours(artifact: str) -> Callable[[ExitJob], Answerer]:
    def make(job: ExitJob) -> Answerer:
        from layoutsel import exits

        model = exits.load(job.folder / f"{artifact}.so")

        def answer(x: np.ndarray) -> tuple[int, int]:
            found = model(x)
            return found.label, model.exits.index(found.exit)

        return answer

    return make


def _our_trunk(job: ExitJob) -> Answerer:
    from layoutsel.runtime.loading import load

    model = load(job.folder / "trunk.so")
    last = len(job.policy.thresholds) - 1
    names = [one.name for one in model.inputs]

    def answer(x: np.ndarray) -> tuple[int, int]:
        return int(model.run_all(model.bind(**{names[0]: x}))[2][0]), last

    return answer


def _our_static(job: ExitJob) -> Answerer:
    """A network without exits; its only output has the values of the classes."""
    from layoutsel.runtime.loading import load

    model = load(job.folder / "static.so")
    last = len(job.policy.thresholds) - 1
    (name,) = [one.name for one in model.inputs]
    return lambda x: (int(model.run_all(model.bind(**{name: x}))[0].argmax()), last)


def _onnxruntime_session(model: onnx.ModelProto, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _onnxruntime_run(model: onnx.ModelProto, threads: int) -> Callable[..., Sequence[np.ndarray]]:
    session = _onnxruntime_session(model, threads)
    names = [one.name for one in session.get_inputs()]
    return lambda *arrays: session.run(None, dict(zip(names, arrays, strict=True)))


def _openvino_run(model: onnx.ModelProto, threads: int) -> Callable[..., Sequence[np.ndarray]]:
    config = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    config["INFERENCE_PRECISION_HINT"] = "f32"
    core = openvino_core()
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", config)
    request = compiled.create_infer_request()
    names = [one.name for one in model.graph.input]
    outputs = compiled.outputs

    def run(*arrays: np.ndarray) -> list[np.ndarray]:
        feed = dict(zip(names, arrays, strict=True))
        results = request.infer(feed, share_inputs=True, share_outputs=True)
        return [results[output] for output in outputs]

    return run


def _trunk(make: Callable[..., Any], threads: int) -> Callable[[ExitJob], Answerer]:
    def prepare(job: ExitJob) -> Answerer:
        run = make(hand_split.trunk_model(onnx.load(job.scored)), threads)
        last = len(job.policy.thresholds) - 1
        return lambda x: (int(run(x)[2][0]), last)

    return prepare


def _segments(make: Callable[..., Any], threads: int) -> Callable[[ExitJob], Answerer]:
    """The segments one after the other, until an exit is sure."""

    def prepare(job: ExitJob) -> Answerer:
        model = onnx.load(job.scored)
        source = model.graph.input[0].name
        segments = hand_split.segments_of(model)
        runs = [make(one, threads) for one in hand_split.segment_models(model)]
        thresholds = [np.inf if t is None else t for t in job.policy.thresholds[:-1]]
        last = len(segments) - 1

        def answer(x: np.ndarray) -> tuple[int, int]:
            have: dict[str, np.ndarray] = {source: x}
            for number, (segment, run) in enumerate(zip(segments, runs, strict=True)):
                results = run(*[have[name] for name in segment.reads])
                if number == last or results[1][0] >= thresholds[number]:
                    return int(results[2][0]), number
                # OpenVINO's results are its own memory, which its next inference overwrites.
                have.update(zip(segment.passes, results[RESULTS:], strict=True))
            raise AssertionError

        return answer

    return prepare


def _onnxruntime_if(threads: int) -> Callable[[ExitJob], Answerer]:
    def prepare(job: ExitJob) -> Answerer:
        model = hand_split.if_model(onnx.load(job.scored), job.policy.thresholds[:-1])
        run = _onnxruntime_run(model, threads)
        # It does not tell the exit.
        return lambda x: (int(run(x)[2][0]), -1)

    return prepare


ENGINES: Mapping[str, Callable[[ExitJob], Answerer]] = {
    "layoutsel": _ours("chosen"),
    "layoutsel-sequential": _ours("sequential"),
    "layoutsel-trunk": _our_trunk,
    STATIC: _our_static,
    **{
        f"{name}-{threads}": made
        for threads in (1, 2)
        for name, made in (
            ("onnxruntime-trunk", _trunk(_onnxruntime_run, threads)),
            ("onnxruntime-segments", _segments(_onnxruntime_run, threads)),
            ("onnxruntime-if", _onnxruntime_if(threads)),
            ("openvino-trunk", _trunk(_openvino_run, threads)),
            ("openvino-segments", _segments(_openvino_run, threads)),
        )
    },
}
"""Engines by name; the number at the end is that of their threads."""
