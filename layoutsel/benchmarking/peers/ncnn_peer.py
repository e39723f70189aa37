"""ncnn, which multiplies by Winograd's algorithm in f32."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from layoutsel.benchmarking.engine import Engine, EngineJob, Run, always_f32
from layoutsel.benchmarking.peers.pnnx_files import NCNN_PARAM, NCNN_WEIGHTS, convert
from layoutsel.benchmarking.variants import Settings, Variant, best_of
from tvm_passes.errors import LayoutselError

VARIANTS = (
    Variant(name="default options", settings={}),
    Variant(name="without Winograd", settings={"use_winograd_convolution": False}),
    Variant(name="without packed products", settings={"use_sgemm_convolution": False}),
)
"""Options of ncnn's documentation that compute in f32."""

_NARROW = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage")
"""Options that would compute in another precision."""


def _load(job: EngineJob, inputs: Mapping[str, np.ndarray], settings: Settings) -> Run:
    import ncnn
    import onnx

    net = ncnn.Net()
    net.opt.num_threads = job.threads
    for name in _NARROW:
        setattr(net.opt, name, False)
    for name, value in settings.items():
        setattr(net.opt, name, value)
    for load, file in ((net.load_param, NCNN_PARAM), (net.load_model, NCNN_WEIGHTS)):
        if load(str(job.workdir / file)):
            raise LayoutselError(f"ncnn cannot load {file}")
    outputs = onnx.load(str(job.model), load_external_data=False).graph.output
    given = [np.ascontiguousarray(value[0]) for value in inputs.values()]

    def run() -> list[np.ndarray]:
        with net.create_extractor() as extractor:
            for index, value in enumerate(given):
                extractor.input(f"in{index}", ncnn.Mat(value))
            results = [extractor.extract(f"out{index}") for index in range(len(outputs))]
            if any(code for code, _ in results):
                raise LayoutselError("ncnn cannot compute an output")
            return [np.array(value) for _, value in results]

    return run


NCNN: Engine = best_of(
    "ncnn",
    VARIANTS,
    _load,
    convert=convert,
    requires=("ncnn", "pnnx"),
    extra="peers",
    computes_in=always_f32,
)
"""ncnn with the fastest of its options."""
