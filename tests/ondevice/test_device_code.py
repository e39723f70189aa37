"""Code of CUDA devices is compiled where bundles are made, and handed to TVM where they are loaded."""

import shutil

import pytest
import tvm
import tvm_ffi
from tvm import relax

from layoutsel.bundling.compile import CUDA_COMPILER, Order, compile_order
from layoutsel.bundling.targets import elsewhere_of
from layoutsel.ondevice.device_code import name_of, provide_device_code
from tvm_passes.partition import PartitionSubgraphs

CALLBACK = "tvm_callback_cuda_compile"
FATBIN = b"\x50\xed\x55\xba"


@pytest.fixture
def callback():
    """What TVM calls, restored behind the test."""
    usual = tvm_ffi.get_global_func(CALLBACK)

    def call(source):
        return tvm_ffi.get_global_func(CALLBACK)(source)

    yield call
    tvm_ffi.register_global_func(CALLBACK, usual, override=True)


def test_compiled_code_is_found(tmp_path, callback):
    (tmp_path / name_of("kernel")).write_bytes(b"code\0of it")
    provide_device_code(tmp_path)
    assert bytes(callback("kernel")) == b"code\0of it"


def test_other_code_is_left_to_tvm(tmp_path, callback):
    tvm_ffi.register_global_func(CALLBACK, lambda source: f"own {source}".encode(), override=True)
    (tmp_path / name_of("kernel")).write_bytes(b"code")
    provide_device_code(tmp_path)
    assert bytes(callback("other")) == b"own other"


@pytest.mark.skipif(
    shutil.which(CUDA_COMPILER) is None, reason=f"no {CUDA_COMPILER} (NVIDIA's CUDA toolkit)"
)
def test_bundles_hold_what_the_driver_takes(tmp_path, callback):
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((64, 64), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            output = builder.emit_output(relax.op.exp(x))
        builder.emit_func_output(output)
    module = PartitionSubgraphs()(builder.finalize())
    (function,) = (f for gv, f in module.functions.items() if gv.name_hint != "main")
    machine = elsewhere_of(["cuda -arch=sm_80"], 2)
    order = Order(
        request={
            "kind": "subgraph",
            "function": tvm.ir.save_json(function),
            "decision": "cuda:NCHW",
        },
        host=dict(machine.host.export()),
        devices={kind: dict(target.export()) for kind, target in machine.devices.items()},
        folder=tmp_path,
        compiler=None,
    )
    (program,) = compile_order(order)
    assert (program.device, program.devices) == ("cuda", ("llvm", "cuda"))
    (code,) = tmp_path.glob("lib/*.fatbin")
    assert code.read_bytes().startswith(FATBIN)
    source = b"__global__"
    assert (
        source in (tmp_path / program.file).read_bytes()
    )  # TVM leaves it; nobody compiles it again
