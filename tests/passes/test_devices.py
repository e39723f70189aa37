"""Device ids: read as they are written, ordered, and strict."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_passes.backends import BACKENDS, Backend
from tvm_passes.decision import Decision, parse_placed_unit
from tvm_passes.devices import (
    DEVICE_TYPES,
    HOST_DEVICE,
    DeviceId,
    kind_of_unit,
)
from tvm_passes.errors import IllegalDecision, IllegalDevice, LayoutselError

NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,6}", fullmatch=True)
INDICES = st.integers(0, 9999)
DEVICES = st.builds(DeviceId, st.just("") | NAMES, NAMES, INDICES)


@given(DEVICES)
def test_ids_are_read_as_they_are_written(device):
    assert DeviceId.parse(str(device)) == device


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("cuda/1", DeviceId("", "cuda", 1)),
        ("edge0/cpu/0", DeviceId("edge0", "cpu", 0)),
        ("srv/cuda/12", DeviceId("srv", "cuda", 12)),
    ],
)
def test_examples(text, device):
    assert DeviceId.parse(text) == device
    assert str(device) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cuda",
        "cuda/",
        "/1",
        "cuda/-1",
        "cuda/01",
        "cuda/x",
        "a/b/c/0",
        "/cuda/0",
        "a//0",
        "cuda/1 ",
        "cuda@1",
        "cuda/1\n",
        "no de/cuda/0",
        "cuda/99999",
        "cuda/¹",
    ],
)
def test_what_is_no_id_is_one_clear_error(text):
    with pytest.raises(IllegalDevice, match=r"expected \[node/\]kind/index, such as cuda/1"):
        DeviceId.parse(text)


def test_ids_are_ordered_by_node_kind_and_number():
    texts = ["cpu/0", "cuda/2", "cuda/10", "a/cuda/0", "b/cpu/0"]
    devices = [DeviceId.parse(text) for text in texts]
    assert sorted(reversed(devices)) == devices
    assert DeviceId() == HOST_DEVICE == DeviceId.parse("cpu/0")


@given(st.sampled_from(sorted(DEVICE_TYPES)), INDICES)
def test_target_names_are_read_as_they_are_written(kind, index):
    device = DeviceId("", "cpu", 0) if kind == "llvm" else DeviceId("", kind, index)
    assert DeviceId.named(device.target_name) == device


def test_target_names_of_first_devices_are_kinds():
    assert HOST_DEVICE.target_name == "llvm"
    assert DeviceId("", "opencl", 0).target_name == "opencl"
    assert DeviceId("", "opencl", 1).target_name == "opencl/1"


@pytest.mark.parametrize("text", ["", "metal", "opencl/0", "opencl/", "opencl/01", "llvm/1", "/1"])
def test_wrong_target_names(text):
    with pytest.raises(IllegalDevice, match=r"expected one of llvm, cuda, opencl"):
        DeviceId.named(text)


def test_decisions_on_first_devices_are_written_without_a_device():
    decision = Decision(unit="onednn", layout="NHWC")
    assert str(decision) == "onednn:NHWC"
    assert decision.device == HOST_DEVICE
    assert str(Decision(unit="cuda")) == "cuda:NCHW"
    assert Decision(unit="cuda").device == DeviceId("", "cuda", 0)
    assert Decision.parse("cuda@0:NCHW") == Decision(unit="cuda")


DECISIONS = st.builds(
    Decision,
    unit=st.sampled_from(["cpu", "onednn", "cuda", "opencl", "npu"]),
    layout=st.sampled_from(["NCHW", "NHWC"]),
    precision=st.sampled_from(["f32", "bf16"]),
    algorithm=st.sampled_from(["direct", "winograd"]),
    node=st.just("") | NAMES,
    index=INDICES,
)


@given(DECISIONS)
def test_decisions_are_read_as_they_are_written(decision):
    assert Decision.parse(str(decision)) == decision
    assert parse_placed_unit(decision.placed_unit) == (decision.unit, decision.device)
    assert decision.on(decision.device) == decision


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("cuda@1:NCHW", "cuda/1"),
        ("onednn@edge0/0:NHWC", "edge0/cpu/0"),
        ("opencl@srv/2:NCHW4c:f32:tuned", "srv/opencl/2"),
    ],
)
def test_decisions_on_other_devices(text, device):
    decision = Decision.parse(text)
    assert str(decision) == text
    assert str(decision.device) == device


@pytest.mark.parametrize(
    "text",
    [
        "cuda@:NCHW",
        "cuda@x:NCHW",
        "cuda@-1:NCHW",
        "cuda@01:NCHW",
        "@1:NCHW",
        "cuda@a/b/1:NCHW",
        "cuda@1@2:NCHW",
        "cuda@/1:NCHW",
        "cuda@edge0:NCHW",
        "cuda@1/:NCHW",
    ],
)
def test_wrong_devices_of_decisions(text):
    with pytest.raises(IllegalDecision, match=r"expected unit\[@\[node/\]index\]"):
        Decision.parse(text)


def test_decisions_sort_by_unit_and_layout_before_the_device():
    first, second = Decision.parse("cuda@1:NCHW"), Decision.parse("cuda:NHWC")
    assert first < second
    assert Decision.parse("cuda:NCHW") < first


def test_units_of_other_packages_tell_their_kind():
    assert kind_of_unit("npu") == "cpu"
    npu = Backend(name="npu", supports=lambda _function, _decision: None, device="opencl")
    with BACKENDS.including(npu):
        assert Decision.parse("npu@1:NCHW").device == DeviceId("", "opencl", 1)
    assert kind_of_unit("npu") == "cpu"


def test_a_unit_on_an_unknown_kind_of_device_is_refused():
    with pytest.raises(
        LayoutselError, match="unit 'npu': got device 'tpu'; expected one of llvm, cuda, opencl"
    ):
        Backend(name="npu", supports=lambda _function, _decision: None, device="tpu")
