"""All passes together: equal values, idempotent, and whatever they do not know passes through."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from normalizing import SHAPE, batch_norm, constant, conv, module_of, operators, scalar
from reference import TOLERANCE, relative_error, run_relax
from tiers import examples
from tvm import relax
from tvm.relax.op import (
    add,
    divide,
    multiply,
    nn,
    permute_dims,
    reshape,
    sigmoid,
    subtract,
)

from tvm_passes.normalize import (
    normalize,
)


def test_unknown_operators_pass_through():
    def emit(e, x):
        y = e(relax.op.sort(e(relax.op.cumsum(x, 1))))
        return relax.op.image.resize2d(y, (12, 12))

    module = module_of(emit)
    assert operators(normalize(module)) == operators(module)


def test_symbolic_shapes_and_control_flow_pass_through():
    size = tvm.tirx.Var("n", "int64")
    x = relax.Var("x", relax.TensorType((size, 8), "float32"))
    chosen = relax.Var("chosen", relax.TensorType((), "bool"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x, chosen]):
        y = builder.emit(reshape(builder.emit(add(x, scalar(0.0))), (size, 2, 4)))
        y = builder.emit(nn.relu(builder.emit(reshape(y, (size, 8)))))
        branches = [relax.SeqExpr([], value) for value in (x, y)]
        builder.emit_func_output(builder.emit(relax.If(chosen, *branches)))
    module = normalize(builder.finalize())
    relax.analysis.well_formed(module)
    assert "nn.relu" in module.script()


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_other_types_pass_through(dtype):
    module = module_of(
        lambda e, x: multiply(e(add(x, relax.const(2, dtype))), relax.const(3, dtype)),
        (2, 3),
        dtype,
    )
    assert operators(normalize(module)) == Counter(["add", "multiply"])


STEPS = {
    "scale": lambda e, x: e(multiply(x, constant(1, 8, 1, 1))),
    "shift": lambda e, x: e(subtract(x, constant(8, 1, 1))),
    "norm": batch_norm,
    "conv": lambda e, x: e(multiply(e(conv(x)), scalar(0.2))),
    "depthwise": lambda e, x: e(conv(x, groups=8)),
    "relu": lambda e, x: e(nn.relu(x)),
    "silu": lambda e, x: e(multiply(x, e(sigmoid(x)))),
    "transpose": lambda e, x: e(permute_dims(x, [0, 1, 3, 2])),
    "reshape": lambda e, x: e(reshape(e(reshape(x, (8, 36))), SHAPE)),
    "residual": lambda e, x: e(add(x, e(nn.relu(e(conv(x)))))),
    "pad": lambda e, x: e(conv(e(nn.pad(x, [0, 0, 0, 0, 1, 1, 1, 1])), padding=0)),
    "divide": lambda e, x: e(divide(x, scalar(1.5))),
}


@settings(max_examples=examples(25), deadline=None)
@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=7))
def test_any_chain_keeps_its_values(steps):
    def emit(e, x):
        for step in steps:
            x = STEPS[step](e, x)
        return x

    before = module_of(emit)
    after = normalize(before)
    value = np.random.default_rng(2).standard_normal(SHAPE).astype("float32")
    got, want = run_relax(after, [value])[0], run_relax(before, [value])[0]
    assert relative_error(got, want) <= TOLERANCE
    assert not {"nn.pad", "nn.batch_norm"} & set(operators(after))
    tvm.ir.assert_structural_equal(normalize(after), after)
