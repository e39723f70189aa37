"""Measurements depend on the versions that matter to them, and on no others."""

from dataclasses import replace

import pytest

from layoutsel.core.workload import BoundaryTensor, Workload
from layoutsel.cost import scopes
from layoutsel.cost.archive import read_archive
from layoutsel.cost.datasets import data_files
from layoutsel.cost.learned import LearnedModel
from layoutsel.cost.logs import read_logs
from layoutsel.cost.residuals import SUBGRAPH, TRANSFORM, ResidualRow
from layoutsel.cost.store import Context, Store, Timing
from tvm_passes.decision import Decision

VERSIONS = {
    "apache-tvm": "1",
    "code": "2",
    "cpu:code": "3",
    "cpu.convolution:code": "4",
    "cpu.generic:code": "5",
    "cpu.reorder:code": "6",
    "cpu.winograd:code": "7",
    "cpu.window:code": "8",
    "onednn:code": "9",
    "onednn:plugin": "10",
    "opencl:device": "a card",
}
CONTEXT = Context(machine="m", versions=VERSIONS, threads=2)
TIMING = Timing(us=12.5, spread_us=0.5, runs=9)
TENSOR = BoundaryTensor(shape=(1, 16, 4, 4), dtype="float32", bytes=1024)
CONVOLUTION = "nn.conv2d"
CANDIDATES = {
    "plain": ("cpu:NCHW", CONVOLUTION),
    "winograd": ("cpu:NCHW16c:f32:winograd", CONVOLUTION),
    "pooling": ("cpu:NHWC", "nn.max_pool2d"),
    "other": ("cpu:NCHW", "cumsum"),
    "unknown": ("cpu:NCHW", ""),
    "amx": ("amx:NHWC:bf16", CONVOLUTION),
    "onednn": ("onednn:NHWC", CONVOLUTION),
    "opencl": ("opencl:NCHW", CONVOLUTION),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.sqlite"


def measured(path, versions):
    """The candidates whose measurement is still there with other versions."""
    with Store(CONTEXT, path) as store:
        for text, kernel in CANDIDATES.values():
            store.put("h", Decision.parse(text), TIMING, kernel)
    with Store(replace(CONTEXT, versions=versions), path, announce=False) as store:
        return {
            name
            for name, (text, kernel) in CANDIDATES.items()
            if store.get("h", Decision.parse(text), kernel) == TIMING
        }


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("apache-tvm", set(CANDIDATES)),
        ("code", set(CANDIDATES)),
        ("cpu:code", {"plain", "winograd", "pooling", "other", "unknown", "amx"}),
        ("cpu.convolution:code", {"plain", "unknown"}),
        ("cpu.winograd:code", {"winograd", "unknown"}),
        ("cpu.window:code", {"pooling", "unknown"}),
        ("cpu.reorder:code", {"unknown"}),
        ("cpu.generic:code", {"plain", "pooling", "other", "unknown"}),
        ("onednn:plugin", {"onednn"}),
        ("opencl:device", {"opencl"}),
        ("release:layoutsel", set()),
        ("npu:code", set()),
    ],
)
def test_a_change_discards_what_it_changes(path, name, lost):
    assert measured(path, {**VERSIONS, name: "changed"}) == set(CANDIDATES) - lost


def test_boundaries_and_residuals_depend_on_their_ends(path):
    transform = ("transform", "NCHW", "NHWC", TENSOR)
    crossing = ("crossing", "cpu", "opencl", TENSOR)
    row = {"model": "abc", "predicted_us": 9.0, "in_plan_us": 10.5}
    with Store(CONTEXT, path) as store:
        store.put_boundary(*transform, TIMING)
        store.put_boundary(*crossing, TIMING)
        of_onednn = ResidualRow(kind=SUBGRAPH, name="s0", decision="onednn:NHWC", **row)
        store.put_residual(of_onednn)
        store.put_residual(ResidualRow(kind=TRANSFORM, name="NCHW>NHWC", **row))

    def left(name):
        context = replace(CONTEXT, versions={**VERSIONS, name: "changed"})
        with Store(context, path, announce=False) as store:
            found = {"transform": transform, "crossing": crossing}
            known = {kind for kind, ask in found.items() if store.boundary(*ask) is not None}
            return known | {row.name for row in store.residuals()}

    everything = {"transform", "crossing", "s0", "NCHW>NHWC"}
    assert left("release:layoutsel") == left("cpu.winograd:code") == everything
    assert left("cpu.reorder:code") == {"crossing", "s0"}
    assert left("opencl:device") == everything - {"crossing"}
    assert left("onednn:plugin") == {"crossing"}
    assert left("code") == set()


def test_only_what_changed_is_announced_as_stale(path, caplog):
    measured(path, VERSIONS)
    Store(replace(CONTEXT, versions={**VERSIONS, "cpu.winograd:code": "changed"}), path).close()
    assert "2 measurements in" in caplog.text
    assert "made with other versions of cpu.winograd:code: ignored" in caplog.text
    caplog.clear()
    without = {name: v for name, v in VERSIONS.items() if not name.startswith("opencl")}
    Store(replace(CONTEXT, versions=without), path).close()
    assert not caplog.records


def test_measurements_of_one_version_for_all_kernels_are_stale(path, caplog):
    before = replace(CONTEXT, versions={"apache-tvm": "1", "kernels": "0123456789ab"})
    with Store(before, path) as store:
        store.put("h", Decision(unit="cpu"), TIMING)
    with Store(CONTEXT, path) as store:
        assert store.count() == 0
        assert store.get("h", Decision(unit="cpu")) is None
    assert "1 measurements in" in caplog.text
    assert "other versions of kernels" in caplog.text
    dataset, skipped = read_logs([path])  # nothing is lost for those who learn from it
    assert (len(dataset.samples), sum(part.count for part in skipped)) == (0, 1)


def work(weights, groups):
    return Workload(
        key="h",
        operator=CONVOLUTION,
        flops=1,
        weight_bytes=1,
        activation_bytes=1,
        weights=(weights,),
        attributes={"groups": (groups,)},
    )


def test_depthwise_convolutions_are_windows():
    assert scopes.kernel_of(work((16, 16, 3, 3), 1)) == CONVOLUTION
    assert scopes.kernel_of(work((16, 8, 3, 3), 2)) == CONVOLUTION
    assert scopes.kernel_of(work((32, 1, 3, 3), 16)) == scopes.DEPTHWISE
    assert scopes.kernel_of(work((16, 1, 3, 3), 16)) == scopes.DEPTHWISE
    assert scopes.kernel_of(work((16, 1, 3, 3), 1)) == CONVOLUTION


@pytest.mark.nightly
def test_shipped_measurements_and_models_still_load():
    for file in data_files(None):
        data, skipped = read_archive(file)
        assert not skipped
        assert data.loaded or (data.samples and data.boundaries and data.models)
    assert LearnedModel.load().card.parts
