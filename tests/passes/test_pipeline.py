"""The plug-in as a TVM user meets it: a bare ``import tvm``, a pipeline by name, passes with hand-written decisions."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tvm
from modules import conv, module_of, run, weight
from tvm import relax
from tvm.relax.op import add, nn

from tvm_passes import onednn
from tvm_passes.cpu import host_target
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.pipeline import default_decisions, layoutsel_pipeline

BARE = """
import numpy as np, tvm
from tvm import relax
assert "layoutsel" in relax.pipeline.PIPELINE_MAP
x = relax.Var("x", relax.TensorType((1, 16, 8, 8), "float32"))
builder = relax.BlockBuilder()
with builder.function("main", [x]):
    with builder.dataflow():
        y = builder.emit_output(relax.op.nn.relu(x))
    builder.emit_func_output(y)
executable = tvm.compile(builder.get(), "llvm", relax_pipeline="layoutsel")
value = np.random.default_rng(0).standard_normal((1, 16, 8, 8)).astype("float32")
result = relax.VirtualMachine(executable, tvm.cpu())["main"](tvm.runtime.tensor(value)).numpy()
np.testing.assert_array_equal(result, np.maximum(value, 0))
"""


def residual():
    def emit(b, x):
        y = b.emit(nn.relu(b.emit(add(b.emit(conv(x, seed=1)), weight(1, 16, 1, 1)))))
        return nn.max_pool2d(b.emit(add(b.emit(conv(y, seed=2)), x)), (2, 2), strides=(2, 2))

    return module_of(emit)


def test_bare_import_registers_the_pipeline():
    done = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


HAND_WRITTEN = [
    {"s0": "cpu:NCHW16c", "s1": "cpu:NHWC", "s2": "cpu:NCHW"},
    {"s0": "onednn:NHWC", "s1": "onednn:NCHW16c", "s2": "onednn:NCHW"},
    {"s0": "onednn:NHWC", "s1": "cpu:NCHW16c", "s2": "onednn:NCHW8c"},
]


@pytest.mark.parametrize("texts", HAND_WRITTEN, ids=["cpu", "onednn", "mixed"])
def test_hand_written_decisions(texts):
    if any("onednn" in text for text in texts.values()) and (reason := onednn.available()):
        pytest.skip(reason)
    decisions = {SubgraphId(key): Decision.parse(text) for key, text in texts.items()}
    module = residual()
    executable = tvm.compile(module, host_target(), relax_pipeline=layoutsel_pipeline(decisions))
    x = np.random.default_rng(0).standard_normal((1, 16, 8, 8)).astype("float32")
    got = relax.VirtualMachine(executable, tvm.cpu())["main"](tvm.runtime.tensor(x)).numpy()
    np.testing.assert_allclose(got, run(module, x)[0], rtol=1e-5, atol=1e-5)


def test_default_decisions_cover_every_sub_graph():
    module = PartitionSubgraphs()(residual())
    assert set(default_decisions(module)) == {"s0", "s1", "s2"}
