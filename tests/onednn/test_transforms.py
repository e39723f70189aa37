"""Partitions of a transform alone, between all layouts that any unit computes in."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from networks import CODEGEN, call, machine
from tvm import relax

from tvm_passes.decided_functions import transform_function
from tvm_passes.layout import block_size, physical_shape
from tvm_passes.layouts import LAYOUTS
from tvm_passes.merge_partitions import MergePartitions
from tvm_passes.onednn import LowerOnednn, available

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))

SHAPE = (2, 32, 3, 5)


def in_layout(value: np.ndarray, layout: str) -> np.ndarray:
    """A plain image in `layout`."""
    if layout == "NHWC":
        value = value.transpose(0, 2, 3, 1)
    elif block := block_size(layout):
        n, c, h, w = value.shape
        value = value.reshape(n, c // block, block, h, w).transpose(0, 1, 3, 4, 2)
    return np.ascontiguousarray(value)


@pytest.mark.parametrize(("source", "destination"), list(itertools.permutations(LAYOUTS, 2)))
def test_elements_go_where_the_destination_has_them(source, destination):
    x = relax.Var("x", relax.TensorType(physical_shape(SHAPE, source), "float32"))
    logical = relax.TensorType(SHAPE, "float32")
    builder = relax.BlockBuilder()
    transform = builder.add_func(
        transform_function(logical, source, destination, "onednn"), "transform"
    )
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(relax.Call(transform, [x]))
        builder.emit_func_output(result)
    value = np.random.default_rng(0).standard_normal(SHAPE).astype("float32")
    vm = machine(LowerOnednn()(MergePartitions(CODEGEN)(builder.finalize())))
    (found,) = call(vm, [in_layout(value, source)])
    np.testing.assert_array_equal(found, in_layout(value, destination))
