"""Kernels that TVM generates, and kernels written by hand, beside numpy."""

from __future__ import annotations

import concurrent.futures

import numpy as np
import pytest
import tvm
from on_opencl import TARGET, kernel, module, needs_device, on_device, pointer, random
from tvm import relax

pytestmark = needs_device

OPERATORS = {
    "relu": (relax.op.nn.relu, [(5, 7)], lambda x: np.maximum(x, 0)),
    "exp": (relax.op.exp, [(33,)], np.exp),
    "sum": (lambda x: relax.op.sum(x, axis=[1]), [(6, 300)], lambda x: x.sum(1)),
    "matmul": (relax.op.matmul, [(40, 33), (33, 50)], np.matmul),
    "row": (relax.op.matmul, [(1, 64), (64, 90)], np.matmul),
    "transpose": (relax.op.permute_dims, [(9, 17)], np.transpose),
    "argmax": (lambda x: relax.op.argmax(x, axis=1), [(4, 50)], lambda x: x.argmax(1)),
    "concat": (
        lambda x, y: relax.op.concat([x, y], 1),
        [(1, 3, 4, 4), (1, 5, 4, 4)],
        lambda x, y: np.concatenate([x, y], 1),
    ),
    "max_pool": (
        lambda x: relax.op.nn.max_pool2d(x, (2, 2), (2, 2)),
        [(1, 3, 6, 8)],
        lambda x: x.reshape(1, 3, 3, 2, 4, 2).max((3, 5)),
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name):
    build, shapes, expected = OPERATORS[name]
    values = [random(*shape) for shape in shapes]
    found = on_device(module(build, *((shape, "float32") for shape in shapes)), *values)
    np.testing.assert_allclose(found, expected(*values), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "float64"])
def test_numbers_of_other_types(dtype):
    value = np.arange(50).astype(dtype)
    found = on_device(module(lambda x: relax.op.add(x, x), ((50,), dtype)), value)
    np.testing.assert_array_equal(found, value + value)


def test_sizes_known_only_when_it_runs():
    n = tvm.tirx.Var("n", "int64")
    mod = module(relax.op.nn.relu, ((n, 8), "float32"))
    for rows in (1, 5, 300):
        value = random(rows, 8)
        np.testing.assert_array_equal(on_device(mod, value), np.maximum(value, 0))


SCALE = """
__kernel void scale(__global float* out, float factor, int first, uchar step, double more, long rows) {
  long row = get_global_id(1) + get_global_size(1) * get_global_id(2);
  if (row < rows) out[row * get_global_size(0) + get_global_id(0)] += factor + first + step + (float)more;
}
"""


def test_arguments_of_each_width_in_three_dimensions():
    device = tvm.opencl(0)
    types = [("handle", 64), ("float", 32), ("int", 32), ("uint", 8), ("float", 64), ("int", 64)]
    tags = ["blockIdx.x", "threadIdx.x", "blockIdx.y", "threadIdx.y", "blockIdx.z"]
    run = kernel("scale", types, tags, SCALE)
    out = tvm.runtime.tensor(np.zeros((24, 10), np.float32), device)
    run(pointer(out), 0.5, -2, 200, 0.25, 24, 5, 2, 4, 3, 2)
    np.testing.assert_array_equal(out.numpy(), np.full((24, 10), 198.75))


def test_time_grows_with_work():
    device = tvm.opencl(0)

    def time_of(size: int) -> float:
        mod = module(relax.op.matmul, *[((size, size), "float32")] * 2)
        machine = relax.VirtualMachine(tvm.compile(mod, TARGET), device)
        value = tvm.runtime.tensor(random(size, size), device)
        return machine.time_evaluator("main", device, number=3, repeat=3)(value, value).median

    assert 0 < time_of(8) < time_of(256)


def test_several_threads_each_with_its_own_machine():
    device = tvm.opencl(0)
    executable = tvm.compile(module(relax.op.matmul, *[((32, 32), "float32")] * 2), TARGET)

    def run(seed: int) -> None:
        machine = relax.VirtualMachine(executable, device)
        x = np.random.default_rng(seed).standard_normal((32, 32)).astype("float32")
        for _ in range(20):
            there = tvm.runtime.tensor(x, device)
            np.testing.assert_allclose(machine["main"](there, there).numpy(), x @ x, atol=1e-4)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(run, seed) for seed in range(4)]:
            done.result()


def test_a_source_that_does_not_build():
    run = kernel(
        "broken",
        [("handle", 64)],
        [],
        "__kernel void broken(__global float* p) { p[0] = nonsense; }",
    )
    with pytest.raises(
        RuntimeError, match=r"(?s)opencl:0 .*kernel 'broken' does not build.*nonsense"
    ):
        run(None)


def test_groups_that_are_too_large():
    device = tvm.opencl(0)
    size = 4 * int(device.max_threads_per_block)
    run = kernel("empty", [], ["threadIdx.x"], "__kernel void empty() {}")
    with pytest.raises(
        RuntimeError, match=rf"kernel 'empty' cannot run in 1×1×1 groups of {size}×1×1; .*fewer"
    ):
        run(size)


def test_nothing_to_do():
    kernel("nothing", [], ["blockIdx.x"], "__kernel void nothing() {}")(0)


def test_arguments_of_the_wrong_kind():
    run = kernel(
        "take", [("handle", 64), ("int", 32)], [], "__kernel void take(__global int* p, int n) {}"
    )
    with pytest.raises(TypeError, match="takes 2 arguments; got 1"):
        run(None)
    with pytest.raises(
        TypeError, match=r"argument 1 of OpenCL kernel 'take' is a .*; expected int32"
    ):
        run(None, "text")
    with pytest.raises(
        TypeError, match=r"argument 0 of OpenCL kernel 'take' is a .*; expected handle"
    ):
        run(7, 7)
    run(None, 7)


def test_launch_parameters_that_opencl_lacks():
    with pytest.raises(ValueError, match=r"wants the launch parameter 'clusterIdx.x'"):
        kernel("grouped", [], ["clusterIdx.x"], "__kernel void grouped() {}")
