"""Features: named once, finite for anything, and monotone in the work."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from learning import convolution, profile

from layoutsel.core.workload import BoundaryTensor, Workload
from layoutsel.cost import boundary_features, features
from tvm_passes.decision import Decision

NHWC = Decision(unit="cpu", layout="NHWC")
shapes = st.lists(st.integers(0, 512), max_size=5).map(tuple)


def asked(work: Workload) -> features.PricingQuestion:
    return features.PricingQuestion(work, NHWC, profile())


@given(
    operator=st.sampled_from(["nn.conv2d", "matmul", "movement", "take", "something.new"]),
    inputs=st.lists(shapes, max_size=3).map(tuple),
    weights=st.lists(shapes, max_size=2).map(tuple),
    outputs=st.lists(shapes, max_size=2).map(tuple),
    attributes=st.dictionaries(
        st.sampled_from(["strides", "padding", "groups", "pool_size", "axis", "permuted", "axes"]),
        st.lists(st.integers(-1, 9), max_size=4).map(tuple),
    ),
)
def test_features_are_finite_for_anything(operator, inputs, weights, outputs, attributes):
    work = Workload(
        key="k",
        operator=operator,
        flops=0.0,
        weight_bytes=0.0,
        activation_bytes=0.0,
        inputs=inputs,
        weights=weights,
        outputs=outputs,
        attributes=attributes,
    )
    row = features.features(asked(work))
    assert row.shape == (len(features.NAMES),)
    assert np.isfinite(row).all()
    assert np.isfinite(features.margins([asked(work)])).all()


@pytest.mark.parametrize("field", ["flops", "weight_bytes", "activation_bytes"])
@given(factor=st.floats(1.0, 100.0))
def test_more_work_never_lowers_what_a_model_is_monotone_in(field, factor):
    work = convolution(32, 64, 14, 3)
    more = replace(work, **{field: getattr(work, field) * factor})
    before, after = features.features(asked(work)), features.features(asked(more))
    changed = {n for n, b, a in zip(features.NAMES, before, after, strict=True) if a != b}
    falling = {n for n, b, a in zip(features.NAMES, before, after, strict=True) if a < b}
    assert changed & features.MONOTONE or factor < 1.0001
    assert changed <= features.MONOTONE
    assert not falling
    assert features.margins([asked(more)]) >= features.margins([asked(work)])


def test_a_permutation_is_told_from_a_view():
    name = features.NAMES.index("run")
    still = replace(convolution(8, 8, 7), attributes={})
    moved = replace(still, attributes={"permuted": (2, 3, 4, 5), "axes": (0, 2, 1, 3)})
    assert features.features(asked(still))[name] == -1
    assert features.features(asked(moved))[name] == pytest.approx(np.log2(5))


def test_hints_are_of_the_decision():
    work = replace(convolution(8, 8, 7), hints={str(NHWC): {"tasks": 8.0}, "cpu:NCHW": {}})
    name = features.NAMES.index("hint_tasks")
    assert features.features(asked(work))[name] == 3.0


@given(shape=shapes, kind=st.sampled_from(["transform", "crossing"]))
def test_boundaries_have_finite_features(shape, kind):
    tensor = BoundaryTensor(shape=shape, dtype="float32", bytes=4 * int(np.prod(shape)))
    row = boundary_features.features(
        boundary_features.AskedBoundary(kind, "NCHW", "NHWC", tensor, profile())
    )
    assert row.shape == (len(boundary_features.NAMES),)
    assert np.isfinite(row).all()
