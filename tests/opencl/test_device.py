"""`tvm.opencl()` after a bare `import tvm`."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tvm
from on_opencl import needs_device, python, random

EXISTS = "print(bool(tvm.opencl(0).exist), bool(tvm.opencl(99).exist))"


@needs_device
def test_a_bare_import_is_enough():
    command = [sys.executable, "-c", f"import tvm; {EXISTS}"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"True False\n"


@needs_device
def test_without_tvms_compiler():
    assert python(f"import layoutsel, tvm; {EXISTS}", TVM_USE_RUNTIME_LIB="1") == "True False"


def test_no_driver_is_no_device(tmp_path):
    assert (
        python(f"import layoutsel, tvm; {EXISTS}", OCL_ICD_VENDORS=str(tmp_path)) == "False False"
    )


@needs_device
def test_what_a_device_says_of_itself():
    device = tvm.opencl(0)
    assert device.device_name
    assert device.max_threads_per_block >= 1
    assert device.multi_processor_count >= 1
    assert len(device.max_thread_dimensions) == 3
    assert device.total_global_memory > 1 << 20
    target = tvm.target.Target.from_device(device)
    assert int(target.attrs["max_threads_per_block"]) == device.max_threads_per_block


@needs_device
def test_a_device_that_is_not_there():
    with pytest.raises(
        ValueError, match=r"no device opencl:99: this machine has \d+ with a driver"
    ):
        tvm.runtime.tensor(random(4), tvm.opencl(99))


@needs_device
@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "int8", "uint8", "int64", "bool"]
)
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (2, 0, 4), (7, 1031)])
def test_copies_there_and_back(dtype, shape):
    value = np.asarray(random(*shape)).astype(dtype)
    there = tvm.runtime.tensor(value, tvm.opencl(0))
    again = tvm.runtime.empty(shape, dtype, tvm.opencl(0))
    there.copyto(again)
    assert again.device == tvm.opencl(0)
    np.testing.assert_array_equal(again.numpy(), value)


@needs_device
def test_copies_of_a_part():
    value = random(64)
    there = tvm.runtime.tensor(value, tvm.opencl(0))
    part = there._create_view((16,), "float32", 128)
    np.testing.assert_array_equal(part.numpy(), value[32:48])
    part.copyfrom(np.zeros(16, np.float32))
    value[32:48] = 0
    np.testing.assert_array_equal(there.numpy(), value)


@needs_device
def test_no_room():
    with pytest.raises(RuntimeError, match=r"opencl:0 \(.*\): no room for a buffer of \d+ bytes"):
        tvm.runtime.empty((1 << 44,), "float32", tvm.opencl(0))


@needs_device
def test_streams():
    device = tvm.opencl(0)
    stream = device.create_raw_stream()
    device.set_raw_stream(stream)
    try:
        value = random(33)
        there = tvm.runtime.tensor(value, device)
        device.sync(stream)
        np.testing.assert_array_equal(there.numpy(), value)
    finally:
        device.set_raw_stream(0)
        device.free_raw_stream(stream)
