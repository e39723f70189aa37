"""Narrow floats are computed in float32, and rounded where the model says so."""

from __future__ import annotations

import numpy as np
import pytest
from normalizing import cleaned, module_of, operators, unchanged
from tvm import relax
from tvm.relax.op import add, astype, concat, matmul, mean, multiply, nn, reshape, sqrt, take

from tests.reference import run_relax
from tvm_passes.ir import constant_of, main_bindings, tensor_types
from tvm_passes.normalize import WidenFloats

TYPES = ["float16", "bfloat16"]


def widened(emit, shape=(2, 3), dtype="float16"):
    return cleaned(WidenFloats(), module_of(emit, shape, dtype))


def types(module):
    """Element types of what a module computes, in order, without its casts."""
    return [
        str(ty.dtype)
        for binding in main_bindings(module["main"])
        if "astype" not in str(binding.value)
        for ty in tensor_types(binding.var.ty)
    ]


@pytest.mark.parametrize("dtype", TYPES)
def test_a_chain_is_rounded_once(dtype):
    module = widened(lambda e, x: sqrt(e(mean(e(multiply(x, x)), [1]))), dtype=dtype)
    assert operators(module) == {"astype": 2, "multiply": 1, "mean": 1, "sqrt": 1}
    assert types(module) == ["float32"] * 3
    assert str(module["main"].ret_ty.dtype) == dtype


def test_constants_and_declared_types_are_widened():
    weights = constant_of(np.ones((3, 4), "float16"))
    module = widened(lambda e, x: matmul(x, weights, out_dtype="float16"))
    assert types(module) == ["float32"]


def test_a_cast_of_the_model_rounds():
    def emit(e, x):
        product = e(multiply(x, relax.const(3.0, "float32")))
        return multiply(e(astype(e(astype(product, "float16")), "float32")), product)

    module = module_of(emit, (2, 3))
    value = np.full((2, 3), 1 + 2**-12, "float32")
    want = np.float32(value * 3).astype("float16") * np.float32(value * 3)
    (got,) = run_relax(cleaned(WidenFloats(), module), [value])
    np.testing.assert_array_equal(got, want)


def test_moved_values_stay_narrow():
    table = constant_of(np.ones((5, 3), "float16"))

    def emit(e, x):
        rows = e(take(table, relax.const([1, 2], "int64"), axis=0))
        return reshape(e(concat([x, rows], axis=0)), (3, 4))

    assert types(widened(emit)) == ["float16"] * 3


def test_fields_of_tuples():
    def emit(e, x):
        parts = e(relax.op.split(e(nn.relu(x)), 3, axis=1))
        return add(e(relax.TupleGetItem(parts, 0)), e(relax.TupleGetItem(parts, 2)))

    module = widened(emit)
    assert set(types(module)) == {"float32"}
    assert operators(module)["astype"] == 2


def test_other_types_stay():
    unchanged(WidenFloats(), lambda e, x: e(add(x, x)))


def test_an_operand_is_cast_once():
    module = widened(lambda e, x: add(e(nn.relu(x)), e(sqrt(x))))
    assert operators(module)["astype"] == 2
