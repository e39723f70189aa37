"""Every pass keeps the module's attributes, among them what an earlier code generation left there, and its devices."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import tvm
from modules import conv, module_of, weight
from tvm import relax
from tvm.relax.global_info import VDevice
from tvm.relax.op import add, nn

from tvm_passes import normalize as normalization
from tvm_passes import onednn
from tvm_passes.backends import BACKENDS
from tvm_passes.cancel_transforms import CancelTransforms
from tvm_passes.cpu import host_target
from tvm_passes.decision import Decision
from tvm_passes.expose_logits import ExposeLogits
from tvm_passes.gpu.lower import LowerGpu
from tvm_passes.lift_weights import LiftWeights
from tvm_passes.merge_partitions import MergePartitions
from tvm_passes.order_subgraphs import OrderSubgraphs
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.pipeline import lower
from tvm_passes.place_devices import PlaceDevices
from tvm_passes.rewrite_layouts import RewriteLayouts, subgraph_id
from tvm_passes.targets import CrossTarget, targeting

NEEDS_ONEDNN = pytest.mark.skipif(
    onednn.available() is not None, reason=f"no oneDNN: {onednn.available()}"
)


def network() -> tvm.IRModule:
    """Something for every pass: a convolution, a transform back and forth, a softmax."""

    def emit(builder, x):
        y = builder.emit(nn.relu(builder.emit(add(builder.emit(conv(x)), weight(1, 16, 1, 1)))))
        there = builder.emit(relax.op.layout_transform(y, lambda n, c, h, w: (n, h, w, c)))
        back = builder.emit(relax.op.layout_transform(there, lambda n, h, w, c: (n, c, h, w)))
        return nn.softmax(back)

    return module_of(emit)


def marked(module: tvm.IRModule) -> tvm.IRModule:
    """`module` with a module of an earlier code generation, an attribute of somebody's, and a device."""
    earlier = tvm.compile(module_of(lambda _builder, x: relax.op.abs(x)), "llvm").mod
    module = module.with_attrs({"external_mods": [earlier], "somebodys": "own"})
    module.update_global_info("vdevice", [VDevice(host_target(), 0, "global")])
    return module


def stage(number: int, unit: str = "cpu") -> tvm.IRModule:
    """The network after partitioning (1), rewriting (2), merging (3) and lowering (4)."""
    module = PartitionSubgraphs()(CancelTransforms()(network()))
    if number == 1:
        return module
    ids = [id_ for function in module.functions.values() if (id_ := subgraph_id(function))]
    decisions = dict.fromkeys(ids, Decision(unit=unit))
    if number == 4:
        return lower(module, decisions, host_target())
    module = RewriteLayouts(decisions)(module)
    return module if number == 2 else MergePartitions()(module)


def all_decided(unit: str) -> Callable[[tvm.IRModule], tvm.IRModule]:
    """The whole pipeline from partitioned to lowered."""

    def lowered(module: tvm.IRModule) -> tvm.IRModule:
        ids = [id_ for function in module.functions.values() if (id_ := subgraph_id(function))]
        return lower(module, dict.fromkeys(ids, Decision(unit=unit)), host_target())

    return lowered


def rewritten(module: tvm.IRModule) -> tvm.IRModule:
    ids = [id_ for function in module.functions.values() if (id_ := subgraph_id(function))]
    return RewriteLayouts(dict.fromkeys(ids, Decision(unit="cpu", layout="NHWC")))(module)


def ordered(module: tvm.IRModule) -> tvm.IRModule:
    ids = [id_ for function in module.functions.values() if (id_ := subgraph_id(function))]
    return OrderSubgraphs(ids)(module)


def on_device(module: tvm.IRModule) -> tvm.IRModule:
    """A device's kernels, without the device."""
    target = tvm.target.Target("opencl", host=host_target())
    with targeting(CrossTarget(host=host_target(), devices={"opencl": target})):
        return LowerGpu("opencl", lambda _index: target)(module)


def unit_of(name: str) -> Callable[[tvm.IRModule], tvm.IRModule]:
    return BACKENDS[name].lower(host_target())


CASES = {
    **{
        name: (network, getattr(normalization, name)())
        for name in normalization.__all__
        if name != "normalize"
    },
    "normalize": (network, normalization.normalize),
    "CancelTransforms": (network, CancelTransforms()),
    "ExposeLogits": (network, ExposeLogits()),
    "PartitionSubgraphs": (network, PartitionSubgraphs()),
    "OrderSubgraphs": (lambda: stage(1), ordered),
    "RewriteLayouts": (lambda: stage(1), rewritten),
    "MergePartitions": (lambda: stage(2, "onednn"), MergePartitions()),
    "LowerCpu": (lambda: stage(2), unit_of("cpu")),
    "LowerGpu": (lambda: stage(2, "opencl"), on_device),
    "LiftWeights": (lambda: stage(4), LiftWeights()),
    "PlaceDevices": (lambda: on_device(stage(2, "opencl")), PlaceDevices()),
    "all for the CPU": (lambda: stage(1), all_decided("cpu")),
}
ONEDNN_CASES = {
    "LowerOnednn": (lambda: stage(3, "onednn"), unit_of("onednn")),
    "all for oneDNN": (lambda: stage(1), all_decided("onednn")),
}


def check(case: tuple[Callable[[], tvm.IRModule], Callable[[tvm.IRModule], tvm.IRModule]]) -> None:
    make, rewrite = case
    before = marked(make())
    after = rewrite(before)
    assert after.attrs["somebodys"] == "own"
    assert after.attrs["external_mods"][-1].same_as(before.attrs["external_mods"][-1]) or (
        after.attrs["external_mods"][0].same_as(before.attrs["external_mods"][0])
    )
    assert len(after.global_infos["vdevice"]) >= 1


@pytest.mark.parametrize("name", CASES)
def test_attributes_stay(name):
    check(CASES[name])


@NEEDS_ONEDNN
@pytest.mark.parametrize("name", ONEDNN_CASES)
def test_attributes_stay_on_onednn(name):
    check(ONEDNN_CASES[name])
