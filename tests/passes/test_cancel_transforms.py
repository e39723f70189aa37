"""Transforms that undo each other vanish, others compose, and equal shapes alone cancel nothing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from modules import module_of, run
from tvm.relax.op import layout_transform, nn, permute_dims

from tvm_passes.cancel_transforms import CancelTransforms
from tvm_passes.ir import main_bindings, op_name
from tvm_passes.layout import PLAIN, index_map
from tvm_passes.layouts import LAYOUTS

SQUARE = (1, 32, 32, 32)
"""Every axis alike: NCHW and NHWC have equal shapes."""


def transforms(module) -> int:
    return sum(
        op_name(binding.value) == "layout_transform" for binding in main_bindings(module["main"])
    )


def chain(*layouts):
    """A module that takes a tensor through `layouts` and applies ReLU at the end."""

    def emit(builder, x):
        for source, destination in pairwise(layouts):
            x = builder.emit(layout_transform(x, index_map(source, destination)))
        return nn.relu(x)

    return module_of(emit, SQUARE)


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != PLAIN])
def test_there_and_back_vanishes(layout):
    assert transforms(CancelTransforms()(chain(PLAIN, layout, PLAIN))) == 0


@pytest.mark.parametrize("middle", ["NHWC", "NCHW8c"])
def test_others_compose_to_one(middle):
    module = chain(PLAIN, middle, "NCHW16c")
    cancelled = CancelTransforms()(module)
    assert transforms(cancelled) == 1
    x = np.random.default_rng(0).standard_normal(SQUARE).astype("float32")
    np.testing.assert_array_equal(run(cancelled, x)[0], run(module, x)[0])


def test_equal_shapes_are_no_reason():
    """To NHWC twice: the shapes of start and end agree where H = W = C, the contents do not."""

    def emit(builder, x):
        once = builder.emit(layout_transform(x, index_map("NCHW", "NHWC")))
        return nn.relu(builder.emit(layout_transform(once, index_map("NCHW", "NHWC"))))

    module = module_of(emit, SQUARE)
    cancelled = CancelTransforms()(module)
    assert transforms(cancelled) == 1
    x = np.random.default_rng(0).standard_normal(SQUARE).astype("float32")
    np.testing.assert_array_equal(run(cancelled, x)[0], run(module, x)[0])


def test_unchanged_without_transforms_and_idempotent():
    module = module_of(lambda b, x: nn.relu(b.emit(permute_dims(x, [0, 2, 3, 1]))), SQUARE)
    x = np.random.default_rng(0).standard_normal(SQUARE).astype("float32")
    once = CancelTransforms()(module)
    np.testing.assert_array_equal(run(once, x)[0], run(module, x)[0])
    assert transforms(CancelTransforms()(CancelTransforms()(chain(PLAIN, "NHWC", PLAIN)))) == 0
