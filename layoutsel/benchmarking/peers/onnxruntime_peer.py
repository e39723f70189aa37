"""ONNX Runtime: with default options, and with the fastest of its session options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from layoutsel.benchmarking.engine import Engine, EngineJob, Report, Run, always_f32
from layoutsel.benchmarking.variants import Settings, Variant, best_of
from layoutsel.references.reference_engine import import_onnxruntime
from tvm_passes.errors import LayoutselError

_SPINNING = "session.intra_op.allow_spinning"
_BLOCKS = "session.dynamic_block_base"
_AFFINITIES = "session.intra_op_thread_affinities"

VARIANTS = (
    Variant(name="default options", settings={}),
    Variant(name="outputs bound", settings={"binding": True}),
    Variant(name="threads do not spin", settings={"entries": {_SPINNING: "0"}}),
    Variant(name="dynamic blocks", settings={"entries": {_BLOCKS: "4"}}),
    Variant(name="threads pinned", settings={"pinned": True}),
    Variant(name="branches in parallel", settings={"parallel": True}),
    Variant(name="fused as BERT", settings={"fused": "bert"}),
    Variant(name="fused as ViT", settings={"fused": "vit"}),
    Variant(name="fused as Swin", settings={"fused": "swin"}),
)
"""Session options of ONNX Runtime's documentation, and its fusions for transformers.

Options that change results are left out: an approximate GELU, and denormal numbers as zero.
"""


def _session_options(job: EngineJob, settings: Settings) -> Any:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if settings.get("parallel"):
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
        options.inter_op_num_threads = job.threads
    for key, value in settings.get("entries", {}).items():
        options.add_session_config_entry(key, value)
    if settings.get("pinned"):
        options.add_session_config_entry(_AFFINITIES, _affinities(job.threads))
    return options


def _affinities(threads: int) -> str:
    """Processors of all threads except the calling one, counted from 1."""
    processors = sorted(os.sched_getaffinity(0))
    if not 1 < threads <= len(processors):
        raise LayoutselError(f"got {threads} threads; expected 2 to {len(processors)} to be pinned")
    return ";".join(str(processor + 1) for processor in processors[1:threads])


def _load(job: EngineJob, inputs: Mapping[str, np.ndarray], settings: Settings) -> Run:
    onnxruntime = import_onnxruntime()
    options = _session_options(job, settings)
    fused = settings.get("fused")
    # A path, as users pass it. The file that `write_case` wrote holds all weights, or they are next
    # to it.
    file = job.model if fused is None else job.workdir / _fused_name(fused)
    if not file.exists():
        raise LayoutselError("its fusions do not apply")
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    feed = dict(inputs)
    if not settings.get("binding"):
        return lambda: session.run(None, feed)
    return _bound(session, feed)


def _bound(session: Any, feed: Mapping[str, np.ndarray]) -> Run:
    """Function that runs on bound inputs and outputs, which are copied nowhere."""
    binding = session.io_binding()
    for name, value in feed.items():
        binding.bind_cpu_input(name, value)
    for output in session.get_outputs():
        binding.bind_output(output.name, "cpu")

    def run() -> list[np.ndarray]:
        session.run_with_iobinding(binding)
        return [value.numpy() for value in binding.get_outputs()]

    return run


def _fused_name(kind: str) -> str:
    return f"fused_{kind}.onnx"


def _fuse(job: EngineJob, report: Report) -> None:
    """Write the models to which ONNX Runtime's fusions for transformers apply."""
    import onnx

    import_onnxruntime()  # without telemetry, before any of its modules
    options = import_module("onnxruntime.transformers.fusion_options")
    optimizer = import_module("onnxruntime.transformers.optimizer")
    for variant in VARIANTS:
        kind = variant.settings.get("fused")
        if kind is None:
            continue
        report(f"onnxruntime: {variant.name}")
        chosen = options.FusionOptions(kind)
        fused = optimizer.optimize_model(
            str(job.model), kind, optimization_options=chosen, opt_level=0
        )
        if sum(fused.get_fused_operator_statistics().values()):
            file = job.workdir / _fused_name(kind)
            large = fused.model.ByteSize() >= onnx.checker.MAXIMUM_PROTOBUF
            fused.save_model_to_file(str(file), use_external_data_format=large)


def _default(job: EngineJob) -> str:
    return f"default options, {job.threads} threads"


ONNXRUNTIME = Engine(
    name="onnxruntime",
    load=lambda job, inputs: _load(job, inputs, {}),
    requires=("onnxruntime",),
    computes_in=always_f32,
    settings=_default,
)
"""ONNX Runtime with default options."""

ONNXRUNTIME_TUNED = best_of(
    "onnxruntime-tuned",
    VARIANTS,
    _load,
    convert=_fuse,
    requires=("onnxruntime",),
    computes_in=always_f32,
)
"""ONNX Runtime with the fastest of its session options and fusions."""
