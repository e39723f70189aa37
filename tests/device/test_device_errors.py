"""What is made of the errors of devices; none is needed here."""

from __future__ import annotations

import numpy as np
import pytest

from layoutsel.device.device_errors import (
    BUILD,
    LOST,
    MEMORY,
    OTHER,
    FailureLocation,
    device_error,
    located,
)
from layoutsel.errors import DeviceError
from layoutsel.runtime.arrays import to_tensor
from tvm_passes.devices import HOST_DEVICE, DeviceId

CALLS = (("opencl_conv", "s0"), ("cpu_add", "s1"), ("opencl_conv", "s2"), ("opencl_max", "s3"))
FIRST, SECOND = (DeviceId("", "opencl", index) for index in range(2))
DEVICES = (HOST_DEVICE, FIRST, SECOND)
SUBGRAPHS = [{"id": "s1", "operators": ["nn.conv2d"], "names": ["conv"]}]


def fails(*steps: tuple[object, ...]):
    """A run that makes these calls, each but the last one with its end, and fails."""

    def run(watch):
        for number, (name, *arguments) in enumerate(steps, 1):
            watch(None, name, True, None, *arguments)
            if number < len(steps):
                watch(None, name, False, None, *arguments)
        raise RuntimeError("again")

    return run


def test_what_the_host_fails_at_is_not_the_devices():
    tensor = to_tensor(np.zeros(16, np.float32))
    assert located(ValueError("off"), fails(("cpu_add", tensor)), CALLS, DEVICES) is None


def test_memory_is_asked_for_by_the_next_step():
    tensor = to_tensor(np.zeros(16, np.float32))
    steps = (("cpu_add", tensor), ("vm.builtin.alloc_storage", None, (4096,), 1, "uint8"))
    place = located(RuntimeError("no room"), fails(*steps), CALLS, DEVICES)
    assert place == FailureLocation(device=FIRST, labels=("s2",), asked_bytes=4096)
    at_host = (("vm.builtin.alloc_storage", None, (4096,), 0, "uint8"),)
    assert located(MemoryError(), fails(*at_host), CALLS, DEVICES) is None


def test_a_kernel_that_the_error_names_counts_more_than_where_a_lost_device_fails_next():
    tensor = to_tensor(np.zeros(16, np.float32))
    run = fails(("vm.builtin.to_device", tensor, 4, 0))
    error = RuntimeError("kernel 'opencl_max_kernel' failed: the device is lost")
    assert located(error, run, CALLS, DEVICES) == FailureLocation(device=FIRST, labels=("s3",))
    assert located(RuntimeError("lost"), run, CALLS, DEVICES).labels == ("s0",)


def test_what_does_not_fail_again_may_be_any_that_has_the_kernel():
    error = RuntimeError("kernel 'opencl_conv_kernel' failed")
    place = located(error, lambda _watch: None, CALLS, DEVICES)
    assert place == FailureLocation(device=FIRST, labels=("s0", "s2"))


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("CUDA: out of memory", MEMORY),
        ("clCreateBuffer gave CL_MEM_OBJECT_ALLOCATION_FAILURE (-4)", MEMORY),
        ("clEnqueueNDRangeKernel gave CL_INVALID_COMMAND_QUEUE (-36)", LOST),
        ("CUDA: an illegal memory access was encountered", LOST),
        ("cuModuleLoadData failed with CUDA_ERROR_INVALID_PTX", BUILD),
        ("a copy of 4 bytes failed: clEnqueueReadBuffer gave CL_OUT_OF_RESOURCES (-5)", OTHER),
    ],
)
def test_drivers_messages_are_understood(text, cause):
    place = FailureLocation(device=FIRST, labels=("s1",))
    error = device_error(RuntimeError(text), place, SUBGRAPHS)
    assert isinstance(error, DeviceError)
    assert (error.cause, error.subgraph, error.device) == (cause, "s1", FIRST)
    assert str(error).startswith("sub-graph s1 (nn.conv2d: 'conv') failed on opencl:0")
    assert text in str(error)
    several = FailureLocation(device=FIRST, labels=("s1", "NCHW_to_NHWC"))
    told = device_error(RuntimeError(text), several, SUBGRAPHS)
    assert told.subgraph == ""
    assert "sub-graph s1 (nn.conv2d: 'conv') or transform NCHW>NHWC failed" in told.what


def test_the_second_device_of_a_kind_is_named():
    tensor = to_tensor(np.zeros(16, np.float32))
    copied = fails(("vm.builtin.to_device", tensor, 4, 1))
    assert located(RuntimeError("lost"), copied, CALLS, DEVICES).device == SECOND
    stored = fails(("vm.builtin.alloc_storage", None, (64,), 2, "uint8"))
    place = located(RuntimeError("no room"), stored, CALLS, DEVICES)
    assert place.device == SECOND
    error = device_error(RuntimeError("opencl:1 (a card): no room"), place, SUBGRAPHS)
    assert error.device == SECOND
    assert " failed on opencl:1" in str(error)
    assert str(error).count("opencl:1") == 1, "the driver's prefix is dropped"
