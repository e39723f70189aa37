"""What a compiling process writes: libraries, and what they are called with."""

import shutil
import subprocess

import numpy as np
import pytest
import tvm
from tvm import relax

from layoutsel.bundling.compile import Order, compile_order
from layoutsel.bundling.targets import machine_of_targets
from layoutsel.device.threads import set_threads
from layoutsel.device.trial import load_program
from tvm_passes import cuda, onednn
from tvm_passes.partition import PartitionSubgraphs


def subgraph(body, *weights):
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 32, 10, 10), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            output = builder.emit_output(body(x, *map(relax.const, weights)))
        builder.emit_func_output(output)
    module = PartitionSubgraphs()(builder.finalize())
    (function,) = (f for gv, f in module.functions.items() if gv.name_hint != "main")
    return {"kind": "subgraph", "function": tvm.ir.save_json(function)}


def convolution(channels):
    weights = np.ones((channels, 32, 3, 3), "float32")
    return subgraph(lambda x, w: relax.op.nn.conv2d(x, w, padding=(1, 1)), weights)


def order(request, folder, machine=None, compiler=None):
    return Order(
        request=request,
        host=dict(machine.host.export()) if machine else None,
        devices={k: dict(t.export()) for k, t in machine.devices.items()} if machine else {},
        folder=folder,
        compiler=compiler,
    )


needs_onednn = pytest.mark.skipif(
    onednn.available() is not None, reason=f"no oneDNN: {onednn.available()}"
)


@pytest.mark.parametrize(
    "decision", ["cpu:NCHW", "cpu:NHWC", pytest.param("onednn:NHWC", marks=needs_onednn)]
)
def test_what_is_written_runs(tmp_path, decision):
    (program,) = compile_order(order({**convolution(64), "decision": decision}, tmp_path))
    set_threads(2)
    candidate = load_program(tmp_path, program)
    assert candidate.copies == program.copies > 1
    result = candidate.run()
    assert len(result) == program.copies
    assert candidate.seconds(3) > 0


def test_large_weights_travel_as_seeds(tmp_path):
    (large,) = compile_order(order({**convolution(64), "decision": "cpu:NCHW16c"}, tmp_path))
    assert len(large.weights) == large.copies
    assert {weight.data for weight in large.weights} == {None}
    scales = subgraph(relax.op.multiply, np.full((1, 32, 1, 1), 2.0, "float32"))
    (small,) = compile_order(order({**scales, "decision": "cpu:NCHW"}, tmp_path))
    assert small.weights
    assert all(weight.data for weight in small.weights)


def test_equal_code_is_one_file(tmp_path):
    chains = {"kind": "crossing", "source": "cpu", "destination": "cpu", "shape": (1, 16)}
    programs = compile_order(order(chains, tmp_path))
    assert len(programs) == 3
    assert len({program.file for program in programs}) == len(list(tmp_path.glob("lib/*")))


@pytest.mark.skipif(cuda.uncompilable() is not None, reason=f"{cuda.uncompilable()}")
def test_code_for_cuda_is_compiled(tmp_path):
    machine = machine_of_targets(["cuda -arch=sm_80"], None)
    request = {**subgraph(relax.op.exp), "decision": "cuda:NCHW"}
    (program,) = compile_order(order(request, tmp_path, machine))
    assert (program.device, program.devices) == ("cuda", ("llvm", "cuda"))
    code = (tmp_path / program.file).read_bytes()
    assert b".target sm_80" in code
    assert b"__global__" not in code


COMPILER = "aarch64-linux-gnu-g++"
EMULATOR = "qemu-aarch64-static"


@pytest.mark.skipif(
    not (shutil.which(COMPILER) and shutil.which(EMULATOR)),
    reason=f"no {COMPILER} or {EMULATOR} (Debian: g++-aarch64-linux-gnu, qemu-user-static)",
)
def test_code_for_another_architecture_loads_there(tmp_path):
    """The dynamic loader of that architecture finds all but what TVM's runtime has."""
    machine = machine_of_targets(["llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a72"], 2)
    request = {**convolution(16), "decision": "cpu:NHWC"}
    (program,) = compile_order(order(request, tmp_path, machine, COMPILER))
    source = tmp_path / "load.c"
    source.write_text(
        "#include <dlfcn.h>\n#include <stdio.h>\n"
        "int main(int n, char** v) { void* l = dlopen(v[1], RTLD_LAZY);\n"
        'printf("%s\\n", l ? "loaded" : dlerror()); return 0; }'
    )
    loader = tmp_path / "load"
    subprocess.run([COMPILER, "-x", "c", source, "-o", loader, "-ldl"], check=True)
    done = subprocess.run(
        [EMULATOR, "-L", "/usr/aarch64-linux-gnu", loader, tmp_path / program.file],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "loaded" or "undefined symbol: TVMFFI" in done.stdout
