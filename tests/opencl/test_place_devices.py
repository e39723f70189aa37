"""Copies where one device reads what another computed: once each, weights not at all."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import tvm
from on_opencl import needs_device
from tvm import relax
from tvm.relax.op import nn

from layoutsel.building.build import lower_decisions
from layoutsel.building.functions import Functions
from tests.cpu.support import TARGET, model, random_array, weights
from tests.reference import relative_error, run_relax
from tvm_passes.backends import BACKENDS
from tvm_passes.cpu import KERNEL_PIPELINE
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.devices import HOST_DEVICE, DeviceId
from tvm_passes.gpu import lower as lowering
from tvm_passes.gpu.schedule import legalise
from tvm_passes.ir import main_bindings, op_name
from tvm_passes.lift_weights import LiftWeights, collect_weights
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.pipeline import build_context, decide, layoutsel_pipeline, lower
from tvm_passes.place_devices import PlaceDevices, device_of_value, devices_of
from tvm_passes.rewrite_layouts import subgraph_id

pytestmark = needs_device

SHAPE = (1, 16, 10, 10)
OPENCL = DeviceId("", "opencl", 0)


def branches(x):
    """A stem, two branches that both read it, and what joins them."""
    stem = nn.relu(nn.conv2d(x, weights(16, 16, 3, 3), padding=1))
    left = nn.conv2d(stem, weights(16, 16, 1, 1, seed=2))
    right = nn.max_pool2d(stem, (3, 3), (1, 1), (1, 1))
    return nn.avg_pool2d(relax.op.concat([left, right], axis=1), (2, 2), (2, 2))


def lowered(units):
    """The module, lowered with sub-graphs on these units by turns."""
    module = PartitionSubgraphs()(model(branches, SHAPE))
    ids = sorted(filter(None, map(subgraph_id, module.functions.values())))
    turns = itertools.cycle(units)
    decisions = {id_: Decision(unit=next(turns)) for id_ in ids}
    return lower(module, decisions, TARGET)


def copies(module):
    """Destinations of the copies in `main`, counted."""
    return Counter(
        device_of_value(binding.value.attrs.dst_vdevice).target_name
        for binding in main_bindings(module["main"])
        if op_name(binding.value) == "to_vdevice"
    )


def run(module, x):
    with build_context(module):
        executable = tvm.compile(
            module, TARGET, relax_pipeline="default_build", tir_pipeline=KERNEL_PIPELINE
        )
    devices = [tvm.device(one.kind, one.index) for one in devices_of(module)]
    return relax.VirtualMachine(executable, devices)["main"](tvm.runtime.tensor(x)).numpy()


def test_a_module_of_the_host_stays_as_it_is():
    module = lowered(["cpu"])
    assert devices_of(module) == (HOST_DEVICE,)
    tvm.ir.assert_structural_equal(PlaceDevices()(module), module)


def test_all_on_the_device_is_one_copy_there_and_one_back():
    module = LiftWeights()(lowered(["opencl"]))
    assert copies(module) == {"opencl": 1, "llvm": 1}


def test_what_two_read_is_copied_once():
    # The stem on the host, everything behind it on the device.
    module = PartitionSubgraphs()(model(branches, SHAPE))
    ids = sorted(filter(None, map(subgraph_id, module.functions.values())))
    decisions = {id_: Decision(unit="cpu" if id_ == "s0" else "opencl") for id_ in ids}
    module = LiftWeights()(lower(module, decisions, TARGET))
    assert copies(module) == {"opencl": 1, "llvm": 1}


def test_weights_are_handed_over_where_they_are_read():
    module = lowered(["opencl", "cpu"])
    found = collect_weights(module)
    assert {weight.device for weight in found} == {HOST_DEVICE, OPENCL}
    types = LiftWeights()(module)["main"].params[-1].ty.fields
    assert len(types) == len(found)
    for ty, weight in zip(types, found, strict=True):
        place = HOST_DEVICE if ty.vdevice is None else device_of_value(ty.vdevice)
        assert place == weight.device


@pytest.mark.parametrize(("second", "transformer"), [("opencl", "opencl"), ("cpu", "cpu")])
def test_a_device_transforms_what_stays_there(second, transformer):
    """Everything else is transformed by the host, where others may read it."""
    module = PartitionSubgraphs(max_operators=1)(model(lambda x: relax.op.exp(nn.relu(x)), SHAPE))
    decisions = {
        "s0": Decision(unit="opencl"),
        "s1": Decision(unit=second, layout="NHWC"),
    }
    decided = decide(module, decisions)
    units = [
        str(function.attrs["layoutsel.unit"])
        for function in decided.functions.values()
        if function.attrs and str(function.attrs.get("layoutsel.transform", "")) == "NCHW>NHWC"
    ]
    assert units == [transformer]


def test_what_a_device_does_not_transform_the_host_does(monkeypatch, caplog):
    def no_transforms(function, target, **options):
        if "layoutsel.transform" in function.attrs:
            raise ValueError("no rule for it")
        return legalise(function, target, **options)

    monkeypatch.setattr(lowering, "legalise", no_transforms)
    body = lambda x: relax.op.exp(nn.relu(x))  # noqa: E731
    module = PartitionSubgraphs(max_operators=1)(model(body, SHAPE))
    decisions = {
        SubgraphId("s0"): Decision(unit="opencl"),
        SubgraphId("s1"): Decision(unit="opencl", layout="NHWC"),
    }
    found = lower_decisions(Functions(module), decisions, TARGET)
    assert found.decisions == decisions
    assert "the host transforms what lies on 'opencl'" in caplog.text
    functions = [function for function, label in found.calls if label == "NCHW_to_NHWC"]
    assert [function.split("_")[0] for function in functions] == ["cpu"]


UNITS = ["cpu", "opencl", *(["onednn"] if BACKENDS["onednn"].unavailable() is None else [])]


@pytest.mark.parametrize("units", [*itertools.permutations(UNITS, 2)], ids="-".join)
def test_units_by_turns_agree(units):
    x = random_array(*SHAPE, seed=3)
    expected = run_relax(model(branches, SHAPE), [x])[0]
    assert relative_error(run(lowered(units), x), expected) < 1e-5


SUBGRAPHS = {
    "grouped": lambda x: nn.relu(nn.conv2d(x, weights(32, 4, 1, 1), groups=4)),
    "grouped 3x3": lambda x: nn.relu(nn.conv2d(x, weights(32, 4, 3, 3), groups=4, padding=1)),
    "depthwise": lambda x: nn.relu(nn.conv2d(x, weights(16, 1, 3, 3), groups=16, padding=1)),
    "strided": lambda x: relax.op.add(
        nn.conv2d(x, weights(24, 16, 3, 3), strides=2), weights(1, 24, 1, 1)
    ),
    "residual": lambda x: nn.relu(relax.op.add(nn.conv2d(x, weights(16, 16, 1, 1)), x)),
    "mean": lambda x: relax.op.exp(relax.op.mean(x, axis=[2, 3])),
    "average": lambda x: nn.relu(nn.avg_pool2d(x, (3, 3), (2, 2), (1, 1))),
    "softmax": lambda x: nn.softmax(x, axis=1),
    "layer norm": lambda x: nn.layer_norm(x, weights(10), weights(10, seed=2), axes=[-1]),
    "row": lambda x: nn.relu(
        relax.op.add(relax.op.matmul(nn.batch_flatten(x), weights(1600, 30)), weights(30))
    ),
    "transpose": lambda x: relax.op.permute_dims(x, [0, 2, 3, 1]),
}


@pytest.mark.parametrize("name", SUBGRAPHS)
def test_what_follows_an_operator(name):
    body = SUBGRAPHS[name]
    module = PartitionSubgraphs()(model(body, SHAPE))
    ids = filter(None, map(subgraph_id, module.functions.values()))
    x = random_array(*SHAPE, seed=5)
    (expected,) = run_relax(model(body, SHAPE), [x])
    found = run(lower(module, {id_: Decision(unit="opencl") for id_ in ids}, TARGET), x)
    assert relative_error(found, expected) < 1e-5


def test_the_pipeline_by_itself_with_decisions_for_two_devices():
    """Tensors of one size, by turns on both."""

    def body(x):
        for _ in range(4):
            x = nn.max_pool2d(nn.relu(nn.conv2d(x, weights(16, 16, 1, 1))), (1, 1))
        return x

    module = model(body, SHAPE)
    parts = PartitionSubgraphs()(module)
    ids = sorted(filter(None, map(subgraph_id, parts.functions.values())))
    decisions = {id_: Decision(unit=("opencl", "cpu")[i % 2]) for i, id_ in enumerate(ids)}
    executable = tvm.compile(
        module,
        TARGET,
        relax_pipeline=layoutsel_pipeline(decisions),
        tir_pipeline=KERNEL_PIPELINE,
    )
    x = random_array(*SHAPE, seed=6)
    machine = relax.VirtualMachine(executable, [tvm.cpu(), tvm.opencl(0)])
    found = machine["main"](tvm.runtime.tensor(x)).numpy()
    assert relative_error(found, run_relax(module, [x])[0]) < 1e-5


def test_several_results():
    def body(x):
        parts = relax.op.split(relax.op.exp(x), 2, axis=1)
        return relax.op.concat([nn.relu(parts[1]), parts[0]], axis=1)

    module = PartitionSubgraphs(max_operators=1)(model(body, SHAPE))
    ids = sorted(filter(None, map(subgraph_id, module.functions.values())))
    x = random_array(*SHAPE, seed=4)
    (expected,) = run_relax(model(body, SHAPE), [x])
    for turn in (0, 1):
        units = itertools.islice(itertools.cycle(["opencl", "cpu"]), turn, None)
        decisions = {id_: Decision(unit=unit) for id_, unit in zip(ids, units, strict=False)}
        found = run(lower(module, decisions, TARGET), x)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
