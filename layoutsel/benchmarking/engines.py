"""Engines that `layoutsel bench` compares, in one table."""

from __future__ import annotations

from layoutsel.benchmarking.engine import Engine
from layoutsel.benchmarking.ours import LAYOUTSEL
from layoutsel.benchmarking.peers.mnn_peer import MNN
from layoutsel.benchmarking.peers.ncnn_peer import NCNN
from layoutsel.benchmarking.peers.onnxruntime_peer import ONNXRUNTIME, ONNXRUNTIME_TUNED
from layoutsel.benchmarking.peers.openvino_peer import OPENVINO, OPENVINO_TUNED
from layoutsel.benchmarking.peers.stock_tvm import STOCK_TVM, TUNED_TVM
from layoutsel.benchmarking.peers.torch_inductor import TORCH_INDUCTOR

ENGINES: dict[str, Engine] = {
    engine.name: engine
    for engine in (
        LAYOUTSEL,
        ONNXRUNTIME,
        ONNXRUNTIME_TUNED,
        OPENVINO,
        OPENVINO_TUNED,
        TORCH_INDUCTOR,
        MNN,
        NCNN,
        STOCK_TVM,
        TUNED_TVM,
    )
}
"""Engines by the names that ``--against`` takes."""
