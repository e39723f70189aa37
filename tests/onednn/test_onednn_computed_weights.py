"""oneDNN's products with weights that are computed at run time, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
import tvm

from layoutsel.units.layouts import packed_layout
from tests.computed_weights import (
    CASES,
    CONV2D,
    MATMUL,
    build_on,
    declines,
    hypernetwork,
    partitioned,
    products,
    random_feeds,
    run_on,
    tracker,
    verdicts,
)
from tests.reference import relative_error, run_onnx
from tvm_passes.cpu.host import has_bf16, host_target
from tvm_passes.decision import Decision
from tvm_passes.onednn import available
from tvm_passes.onednn.legality import hints

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))
needs_bf16 = pytest.mark.skipif(not has_bf16(host_target()), reason="a CPU without AVX512_BF16")
TOLERANCE = {"f32": 2e-6, "bf16": 1e-2, "split-bf16": 2e-5}


def check(name, decision):
    case = CASES[name]
    functions, feeds = partitioned(case.model()), case.feeds()
    assert declines(functions, decision) == []
    (want,) = run_onnx(case.model(), feeds)
    assert relative_error(run_on(functions, decision, feeds), want) < TOLERANCE[decision.precision]


@pytest.mark.parametrize("name", CASES)
def test_plain(name):
    check(name, Decision(unit="onednn"))


NO_JIT_BLOCKED = {"correlation", "depth multiplier"}
"""Of one result channel, or two per group, oneDNN has none but a reference implementation in blocks; of constants too."""


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        *((name, "NHWC") for name in CONV2D),
        *((name, packed_layout()) for name in CONV2D if name not in NO_JIT_BLOCKED),
    ],
)
def test_layouts(name, layout):
    if layout == "NCHW8c" and (
        declined := declines(
            partitioned(CASES[name].model()), Decision(unit="onednn", layout=layout)
        )
    ):
        assert declined[0].got.startswith("implementation ref")
        pytest.skip(str(declined[0]))
    check(name, Decision(unit="onednn", layout=layout))


@needs_bf16
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("name", ["3x3", "grouped", "depthwise", "conv1d", "conv3d", *MATMUL])
def test_bf16(name, layout):
    check(name, Decision(unit="onednn", layout=layout, precision="bf16"))


@needs_bf16
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("name", ["pointwise", "dilated", "few rows", "many rows"])
def test_split(name, layout):
    check(name, Decision(unit="onednn", layout=layout, precision="split-bf16"))


@pytest.mark.parametrize("name", ["3x3", "depthwise", "transposed strided", "one row"])
def test_new_values_in_the_same_memory(name):
    """Nothing of the weights of one call is left for the next."""
    case = CASES[name]
    model = build_on(partitioned(case.model()), Decision(unit="onednn"))
    first, second = case.feeds(seed=1), case.feeds(seed=2)
    tensors = [tvm.runtime.tensor(array) for array in first.values()]
    for feeds in (first, second):
        for tensor, array in zip(tensors, feeds.values(), strict=True):
            tensor.copyfrom(array)
        (want,) = run_onnx(case.model(), feeds)
        assert relative_error(model(*tensors), want) < TOLERANCE["f32"]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", packed_layout()])
@pytest.mark.parametrize("model", [hypernetwork(), hypernetwork(groups=2), tracker()])
def test_weights_from_the_same_partition(model, layout):
    feeds = random_feeds(model)
    (want,) = run_onnx(model, feeds)
    got = run_on(partitioned(model), Decision(unit="onednn", layout=layout), feeds)
    assert relative_error(got, want) < TOLERANCE["f32"]


def test_copies_are_in_the_hints():
    """A constant is packed once; what is computed is read, written in another form, and read again."""
    case = CASES["3x3"]
    (function,) = products(partitioned(case.model()))
    found = hints(function, Decision(unit="onednn", layout="NHWC"))
    assert found["repacked_bytes"] == 4 * np.prod(case.weight)
    assert "repacked_bytes" not in hints(
        next(iter(partitioned(CASES["matrices"].model()).values())),
        Decision(unit="onednn"),
    )


@pytest.mark.parametrize("name", CASES)
def test_runs_wherever_constant_weights_do(name):
    decisions = ["NCHW", "NHWC", packed_layout()]
    if has_bf16(host_target()):
        decisions += ["NCHW:bf16", "NHWC:bf16", "NCHW:split-bf16", "NHWC:split-bf16"]
    known = verdicts(CASES[name], "onednn", decisions, constant=True)
    computed = verdicts(CASES[name], "onednn", decisions, constant=False)
    assert set(known) <= set(computed)
