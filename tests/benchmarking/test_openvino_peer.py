"""OpenVINO in a process that receives signals."""

from __future__ import annotations

import subprocess
import sys

import pytest
from onnx import TensorProto, helper, save

FREED_ELSEWHERE = """
import faulthandler, gc, pathlib, signal, sys, threading, time
import numpy as np
from layoutsel.benchmarking.engine import EngineJob
from layoutsel.benchmarking.peers.openvino_peer import OPENVINO

def free():
    loaded.clear()
    gc.collect()

faulthandler.enable()  # handlers on a signal stack, as in a process of pytest
model = pathlib.Path(sys.argv[1])
job = EngineJob(model=model, threads=1, precision="f32", workdir=model.parent, options={})
loaded = [OPENVINO.load(job, {"x": np.ones((1, 8), np.float32)})]
loaded[0]()
thread = threading.Thread(target=free)
thread.start()
thread.join()
signal.signal(signal.SIGALRM, lambda *_: print("handled"))
signal.setitimer(signal.ITIMER_REAL, 0.01)
time.sleep(0.1)
"""


def test_signals_are_handled_after_another_thread_freed_a_model(tmp_path):
    pytest.importorskip("openvino")
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])],
    )
    model = tmp_path / "relu.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
    command = [sys.executable, "-c", FREED_ELSEWHERE, model]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
