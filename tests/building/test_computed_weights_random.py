"""Random products with weights that are computed at run time, on each unit of the host, against ONNX Runtime."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.computed_weights import Case, partitioned, run_on, verdicts
from tests.reference import relative_error, run_onnx
from tvm_passes import onednn
from tvm_passes.decision import Decision

UNITS = ["cpu", "onednn"] if onednn.available() is None else ["cpu"]
TOLERANCE = 3e-6
EPILOGUES = st.sampled_from([(), ("bias",), ("relu",), ("bias", "relu"), ("residual", "relu")])
QUICK = settings(
    max_examples=6, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
small = st.integers(1, 3)


@st.composite
def convolutions(draw: st.DrawFn) -> Case:
    """1-D and 2-D, transposed or not, in groups, strided, dilated and padded unevenly."""
    axes = draw(st.integers(1, 2))
    each = st.lists(small, min_size=axes, max_size=axes)
    kernel, strides, dilations = draw(each), draw(each), draw(each)
    pads = draw(st.lists(st.integers(0, 2), min_size=2 * axes, max_size=2 * axes))
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    inputs, outputs = (groups * draw(st.integers(1, 20)) for _ in range(2))
    if draw(st.booleans()):
        inputs = outputs = groups = draw(st.integers(2, 40))
    reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    sizes = [draw(st.integers(far + 1, far + 9)) for far in reach]
    transposed = draw(st.booleans())
    if transposed:
        # A padding takes away of the result, of which something has to stay.
        pads = [min(pad, far // 2) for pad, far in zip(pads, [*reach, *reach], strict=True)]
    weight = (inputs, outputs // groups) if transposed else (outputs, inputs // groups)
    return Case(
        operator="ConvTranspose" if transposed else "Conv",
        source=(draw(st.integers(1, 2)), inputs, *sizes),
        weight=(*weight, *kernel),
        attributes={"group": groups, "strides": strides, "dilations": dilations, "pads": pads},
        epilogue=draw(EPILOGUES),
    )


@st.composite
def products(draw: st.DrawFn) -> Case:
    """Of matrices, with leading dimensions that broadcast."""
    full = draw(st.lists(small, max_size=2))
    rows, depth, columns = draw(st.integers(1, 60)), draw(st.integers(1, 40)), draw(st.integers(1, 70))  # fmt: skip

    def leading() -> tuple[int, ...]:
        own = [draw(st.sampled_from([1, extent])) for extent in full]
        return tuple(own[draw(st.integers(0, len(own))) :])

    return Case(
        operator="MatMul",
        source=(*leading(), rows, depth),
        weight=(*leading(), depth, columns),
        epilogue=draw(st.sampled_from([(), ("relu",), ("residual",)])),
    )


def check(case: Case, unit: str, layout: str) -> None:
    functions, feeds = partitioned(case.model()), case.feeds()
    decision = Decision(unit=unit, layout=layout)
    known, computed = (verdicts(case, unit, [layout], constant=c) for c in (True, False))
    assert set(known) <= set(computed)
    (want,) = run_onnx(case.model(), feeds)
    assert relative_error(run_on(functions, decision, feeds), want) < TOLERANCE


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NCHW16c"])
def test_convolutions(unit, layout):
    QUICK(given(convolutions())(lambda case: check(case, unit, layout)))()


@pytest.mark.parametrize("unit", UNITS)
def test_products(unit):
    QUICK(given(products())(lambda case: check(case, unit, "NCHW")))()
