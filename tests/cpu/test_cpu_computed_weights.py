"""The CPU's kernels of products with weights that are computed at run time, against ONNX Runtime."""

from __future__ import annotations

import pytest

from tests.computed_weights import (
    CASES,
    CONV2D,
    MATMUL,
    OTHER_CONVOLUTIONS,
    TRANSPOSED,
    Case,
    declines,
    partitioned,
    products,
    run_on,
    verdicts,
)
from tests.reference import relative_error, run_onnx
from tvm_passes.cpu.host import has_bf16, host_target
from tvm_passes.cpu.legality import hints, supports
from tvm_passes.decision import Decision

needs_bf16 = pytest.mark.skipif(not has_bf16(host_target()), reason="a CPU without AVX512_BF16")
TOLERANCE = {"f32": 2e-6, "bf16": 1e-2, "split-bf16": 2e-5}


def check(name, decision):
    case = CASES[name]
    functions, feeds = partitioned(case.model()), case.feeds()
    assert declines(functions, decision) == []
    assert not any("kernel_fallback" in hints(f, decision) for f in products(functions))
    (want,) = run_onnx(case.model(), feeds)
    assert relative_error(run_on(functions, decision, feeds), want) < TOLERANCE[decision.precision]


NOT_3D = sorted(name for name in TRANSPOSED if not name.endswith("3d"))


@pytest.mark.parametrize("name", [*CONV2D, *OTHER_CONVOLUTIONS, *NOT_3D, *MATMUL])
def test_plain(name):
    check(name, Decision(unit="cpu"))


FILLS_BLOCKS = sorted(
    CONV2D.keys()
    - {"correlation", "ragged groups", "odd channels", "depthwise 5x5", "depth multiplier"}
)


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        *((name, "NHWC") for name in CONV2D),
        *((name, "NCHW16c") for name in FILLS_BLOCKS),
    ],
)
def test_layouts(name, layout):
    check(name, Decision(unit="cpu", layout=layout))


ROWS = sorted(MATMUL.keys() - {"many rows"})
"""Products that are read where they lie; of packed ones there are kernels for float32 alone, as of constants."""


@needs_bf16
@pytest.mark.parametrize("precision", ["bf16", "split-bf16"])
@pytest.mark.parametrize("name", [*ROWS, "depthwise", "one pixel of each channel"])
def test_stored_otherwise(name, precision):
    layout = "NCHW" if name in MATMUL else "NHWC"
    check(name, Decision(unit="cpu", layout=layout, precision=precision))


@pytest.mark.parametrize("name", CASES)
def test_runs_wherever_constant_weights_do(name):
    decisions = ["NCHW", "NHWC", "NCHW16c", "NCHW:bf16", "NHWC:bf16", "NHWC:split-bf16"]
    known = verdicts(CASES[name], "cpu", decisions, constant=True)
    computed = verdicts(CASES[name], "cpu", decisions, constant=False)
    assert set(known) <= set(computed)


def test_constant_weights_are_packed_once():
    """No code packs at run time what is known before: the kernel takes an argument in the form that it reads."""
    case = CASES["3x3"]
    for constant in (True, False):
        (function,) = products(partitioned(case.model(constant=constant)))
        assert ("repacked_bytes" in hints(function, Decision(unit="cpu"))) is not constant


def test_winograd_is_for_constant_weights():
    """Its transformation of the weights runs in numpy."""
    (function,) = products(partitioned(CASES["pointwise"].model()))
    decline = supports(function, Decision(unit="cpu", layout="NCHW16c", algorithm="winograd"))
    assert decline is not None
    assert "winograd" in decline.got


@pytest.mark.parametrize("layout", ["NHWC", "NCHW16c"])
@pytest.mark.parametrize("name", ["transposed strided", "transposed ragged", "transposed grouped"])
def test_transposed_in_other_layouts(name, layout):
    decision = Decision(unit="cpu", layout=layout)
    if layout == "NHWC":
        check(name, decision)
    feeds = CASES[name].feeds()
    (want,) = run_onnx(CASES[name].model(), feeds)
    got = run_on(partitioned(CASES[name].model()), decision, feeds)
    assert relative_error(got, want) < TOLERANCE["f32"]


@pytest.mark.parametrize("name", [*OTHER_CONVOLUTIONS, *NOT_3D])
def test_the_same_kernels_of_constant_weights(name):
    case = CASES[name]
    feeds, model = case.feeds(), case.model(constant=True)
    functions = partitioned(model)
    del feeds["w"]
    assert not any("kernel_fallback" in hints(f, Decision(unit="cpu")) for f in products(functions))
    (want,) = run_onnx(model, feeds)
    assert relative_error(run_on(functions, Decision(unit="cpu"), feeds), want) < TOLERANCE["f32"]


def test_many_phases_stay_generic():
    """Each phase is a kernel of its own: strides of 5 would be 25 of them, and take long to compile."""
    case = Case(
        operator="ConvTranspose",
        source=(1, 8, 4, 4),
        weight=(8, 8, 5, 5),
        attributes={"strides": [5, 5]},
    )
    (function,) = products(partitioned(case.model()))
    decline = supports(function, Decision(unit="cpu", layout="NHWC"))
    assert decline is not None
    assert decline.operator == "nn.conv2d_transpose"
