"""Only what was built for CUDA is loaded with CUDA's hook, which replaces a function of TVM for the whole process."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import tvm
from tvm import relax

from layoutsel.device.virtual_machine import load_library, virtual_machine
from tvm_passes import cuda
from tvm_passes.devices import DeviceId


@pytest.fixture
def library(tmp_path):
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((4,), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(relax.op.abs(x))
        builder.emit_func_output(result)
    tvm.compile(builder.get(), "llvm").export_library(str(tmp_path / "abs.so"))
    return tmp_path / "abs.so"


@pytest.mark.parametrize(
    ("devices", "times"), [(("llvm",), 0), (("llvm", "opencl"), 0), (("llvm", "cuda"), 1)]
)
def test_the_hook_is_for_cuda_alone(library, devices, times, monkeypatch):
    hooked = []

    def taking_ptx():
        hooked.append(devices)
        return nullcontext()

    monkeypatch.setattr(cuda, "taking_ptx", taking_ptx)
    module = load_library(library, map(DeviceId.named, devices))
    assert len(hooked) == times
    assert virtual_machine(module)["main"](tvm.runtime.empty((4,), "float32")) is not None
