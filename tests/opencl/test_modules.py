"""Modules of kernels that are saved, loaded and run elsewhere, and modules whose parts run on two devices."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import tvm
from on_opencl import TARGET, loaded, module, needs_device, on_device, pointer, random, saved
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

TWICE = "__kernel void twice(__global float* p) { p[get_global_id(0)] *= 2; }\n"
ARGUMENTS = ("twice", [("handle", 64)], ["blockIdx.x"], TWICE)


def sources(mod: tvm.runtime.Module) -> list[str]:
    """OpenCL C in the modules that a module imports."""
    own = [mod.inspect_source()] if mod.kind == "opencl" else []
    return own + [source for part in mod.imports for source in sources(part)]


@needs_device
def test_what_is_exported_is_what_was_compiled(tmp_path):
    mod = module(relax.op.nn.softmax, ((6, 50), "float32"))
    executable = tvm.compile(mod, TARGET)
    path = str(tmp_path / "exported.so")
    executable.export_library(path)
    again = tvm.runtime.load_module(path)
    assert len(sources(executable.mod)) == 1
    assert sources(again) == sources(executable.mod)
    device, value = tvm.opencl(0), random(6, 50)
    found = relax.VirtualMachine(again, device)["main"](tvm.runtime.tensor(value, device))
    np.testing.assert_array_equal(found.numpy(), on_device(mod, value))


EXPORT_WITHOUT = """
import os, sys
os.environ["TVM_DEVICE_BACKEND_AUTOLOAD"] = "0"
sys.path.insert(0, sys.argv[1])
import numpy as np, tvm
from tvm import relax
builder = relax.BlockBuilder()
x = relax.Var("x", relax.TensorType((4, 6), "float32"))
with builder.function("main", [x]):
    with builder.dataflow():
        out = builder.emit_output(relax.op.nn.relu(x))
    builder.emit_func_output(out)
tvm.compile(builder.get(), tvm.target.Target("opencl", host="llvm")).export_library(sys.argv[2])
"""


@needs_device
def test_what_a_tvm_without_opencl_exported_runs(tmp_path):
    path = tmp_path / "exported.so"
    subprocess.run(
        [sys.executable, "-c", EXPORT_WITHOUT, str(tmp_path), str(path)],
        check=True,
        env=dict(os.environ),
        timeout=300,
    )
    device = tvm.opencl(0)
    value = random(4, 6)
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(path)), device)
    found = machine["main"](tvm.runtime.tensor(value, device)).numpy()
    np.testing.assert_array_equal(found, np.maximum(value, 0))


@needs_device
@pytest.mark.parametrize("keep", [0, 7, 40, -1])
def test_bytes_that_are_cut_off(keep):
    with pytest.raises(ValueError, match="a saved OpenCL module is cut off"):
        loaded(saved(*ARGUMENTS)[:keep])


@needs_device
def test_a_function_that_is_not_there():
    mod = loaded(saved(*ARGUMENTS))
    tensor = tvm.runtime.tensor(np.ones(3, np.float32), tvm.opencl(0))
    mod["twice"](pointer(tensor), 3)
    np.testing.assert_array_equal(tensor.numpy(), [2, 2, 2])
    with pytest.raises(AttributeError):
        mod["thrice"]


@I.ir_module
class TwoDevices:
    I.module_global_infos({"vdevice": [I.vdevice("llvm"), I.vdevice("opencl")]})

    @R.function
    def main(
        x: R.Tensor((48, 48), "float32", "llvm"), y: R.Tensor((48, 48), "float32", "llvm")
    ) -> R.Tensor((48, 48), "float32", "llvm"):
        with R.dataflow():
            a: R.Tensor((48, 48), "float32", "llvm") = R.add(x, y)
            b: R.Tensor((48, 48), "float32", "opencl") = R.to_vdevice(a, "opencl")
            c: R.Tensor((48, 48), "float32", "opencl") = R.matmul(b, b)
            d: R.Tensor((48, 48), "float32", "llvm") = R.to_vdevice(c, "llvm")
            e = R.add(d, y)
            R.output(e)
        return e


@needs_device
def test_parts_on_two_devices():
    machine = relax.VirtualMachine(tvm.compile(TwoDevices, TARGET), [tvm.cpu(), tvm.opencl(0)])
    x, y = random(48, 48), random(48, 48) + 1
    found = machine["main"](tvm.runtime.tensor(x), tvm.runtime.tensor(y))
    assert found.device == tvm.cpu()
    np.testing.assert_allclose(found.numpy(), (x + y) @ (x + y) + y, rtol=1e-4, atol=1e-2)


@needs_device
def test_a_part_of_a_tensor_is_no_argument():
    mod = module(relax.op.nn.relu, ((16,), "float32"))
    device = tvm.opencl(0)
    machine = relax.VirtualMachine(tvm.compile(mod, TARGET), device)
    whole = tvm.runtime.tensor(random(32), device)
    with pytest.raises(Exception, match="byte_offset"):
        machine["main"](whole._create_view((16,), "float32", 64))
    assert on_device(mod, random(16)).shape == (16,)
