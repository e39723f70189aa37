"""Modules to normalise, and the check of one pass: before and expected, equal values, idempotent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import tvm
from reference import TOLERANCE, relative_error, run_relax
from tvm import relax
from tvm.relax.op import (
    nn,
)

from tvm_passes.ir import main_bindings, op_name

SHAPE = (1, 8, 6, 6)
RNG = np.random.default_rng(0)


def constant(*shape, low=-1.0, high=1.0, dtype="float32"):
    return relax.const(RNG.uniform(low, high, shape).astype(dtype))


def scalar(value):
    return relax.const(value, "float32")


def module_of(emit: Callable, shape=SHAPE, dtype="float32"):
    """A module whose `main` binds every call that `emit` makes through the given function."""
    x = relax.Var("x", relax.TensorType(shape, dtype))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(emit(builder.emit, x))
        builder.emit_func_output(result)
    return builder.finalize()


def cleaned(rewrite, module):
    return relax.transform.DeadCodeElimination(["main"])(
        relax.transform.CanonicalizeBindings()(rewrite(module))
    )


def operators(module):
    return Counter(op_name(binding.value) or "alias" for binding in main_bindings(module["main"]))


def check(rewrite, emit, expected, shape=SHAPE):
    """`rewrite` leaves the `expected` operators, the same values, and nothing more to do."""
    before = module_of(emit, shape)
    original = before.script()
    after = cleaned(rewrite, before)
    assert before.script() == original
    assert operators(after) == Counter(expected.split())
    again = cleaned(rewrite, after)
    assert operators(again) == operators(after)
    value = np.random.default_rng(1).standard_normal(shape).astype("float32")
    for got, want in zip(run_relax(after, [value]), run_relax(before, [value]), strict=True):
        assert relative_error(got, want) <= TOLERANCE
    return after


def unchanged(rewrite, emit, shape=SHAPE):
    module = module_of(emit, shape)
    tvm.ir.assert_structural_equal(rewrite(module), module)


def conv(x, channels=8, out=8, kernel=3, **options):
    weight = constant(out, channels // options.get("groups", 1), kernel, kernel)
    return nn.conv2d(x, weight, padding=options.pop("padding", kernel // 2), **options)


def batch_norm(emit, x, channels=8, axis=1):
    parameters = [constant(channels) for _ in range(3)] + [constant(channels, low=0.5)]
    return emit(relax.TupleGetItem(emit(nn.batch_norm(x, *parameters, axis, training=False)), 0))
