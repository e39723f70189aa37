"""Numbers that float32 holds and bfloat16 does not: masks of float32's least one, on every unit and precision."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
import tvm
from on_units import UNITS, decisions_for, model, run
from onnx import helper

from layoutsel.model.import_onnx import import_model
from tests.reference import relative_error
from tvm_passes.cpu import emit, host_target
from tvm_passes.cpu.host import has_bf16
from tvm_passes.decision import Decision
from tvm_passes.onednn import plugin as onednn
from tvm_passes.partition import PartitionSubgraphs

needs_bf16 = pytest.mark.skipif(not has_bf16(host_target()), reason="no AVX512_BF16")
needs_onednn = pytest.mark.skipif(onednn.available() is not None, reason="no oneDNN plugin")
LEAST = float(np.finfo("float32").min)
LARGEST = float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)
TOKENS, SIZE = 32, 16


def stored(kind, values):
    """The float32 values of `values` after a kernel has stored them as `kind`."""
    lanes, count = 16, len(values)
    halves = {"narrow": lambda v: (emit.narrow(v, lanes),), "split": lambda v: emit.split(v, lanes)}

    def body(buffers):
        source, *results = buffers
        with emit.serial(count // lanes) as i:
            at = emit.bind(i * lanes)
            for out, half in zip(results, halves[kind](emit.load(source, at, lanes)), strict=True):
                emit.store(out, half, at, lanes)

    parts = 2 if kind == "split" else 1
    code = emit.prim_func([((count,), "float32"), *[((count,), "uint16")] * parts], body)
    compiled = tvm.compile(
        tvm.IRModule({"main": code.with_attr("global_symbol", "main")}), host_target()
    )
    results = [tvm.runtime.tensor(np.zeros(count, "uint16")) for _ in range(parts)]
    compiled["main"](tvm.runtime.tensor(values), *results)
    return sum(r.numpy().view(ml_dtypes.bfloat16).astype("float32") for r in results)


@needs_bf16
@pytest.mark.parametrize("kind", ["narrow", "split"])
def test_finite_numbers_stay_finite_and_others_stay(kind):
    given = [LEAST, -LEAST, LARGEST, 3.4e38, -np.inf, np.inf, np.nan, 0, 1, -1, 1e-30, 3.3e38]
    values = np.resize(np.array(given, "float32"), 48)
    got, want = stored(kind, values)[:12], np.clip(values[:12], -LARGEST, LARGEST)
    want = np.where(np.isinf(values[:12]), values[:12], want)
    np.testing.assert_allclose(got, want, rtol=2**-8 if kind == "narrow" else 2**-16)


def attention(mask):
    """Scores of queries and keys, plus a mask, and the shares of values."""
    rng = np.random.default_rng(0)
    feeds = {
        name: rng.standard_normal((1, 2, TOKENS, SIZE)).astype("float32") for name in ("q", "v")
    }
    feeds["k"] = rng.standard_normal((1, 2, SIZE, TOKENS)).astype("float32")
    feeds["mask"] = mask
    parts = [
        ("MatMul", "q k", "s", {}),
        ("Mul", "s scale", "t", {}),
        ("Add", "t mask", "u", {}),
        ("Softmax", "u", "p", {"axis": -1}),
        ("MatMul", "p v", "y", {}),
    ]
    nodes = [helper.make_node(kind, i.split(), [o], **attrs) for kind, i, o, attrs in parts]
    scale = np.float32(SIZE**-0.5)
    scores = feeds["q"].astype("float64") @ feeds["k"] * scale + mask
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    want = shares / shares.sum(axis=-1, keepdims=True) @ feeds["v"]
    return model(nodes, feeds, ["y"], {"scale": scale}), feeds, want


ALLOWED = np.tril(np.ones((TOKENS, TOKENS), bool))
ALLOWED[:, :4] = False
MASK = np.where(ALLOWED, 0, LEAST).astype("float32").reshape(1, 1, TOKENS, TOKENS)
ERRORS = {"f32": 1e-6, "bf16": 2e-2}


def checked(made, feeds, want, decision):
    (got,) = run(made, feeds, decision)
    assert np.isfinite(got).all()
    assert relative_error(got, want) < ERRORS[decision.precision]


@pytest.mark.parametrize("unit", UNITS)
def test_masked_attention(unit):
    checked(*attention(MASK), Decision(unit=unit))


@needs_bf16
@needs_onednn
def test_masked_attention_in_bfloat16():
    checked(*attention(MASK), Decision(unit="onednn", precision="bf16"))


@needs_bf16
@needs_onednn
def test_a_constant_mask_in_bfloat16():
    made, feeds, want = attention(MASK)
    made.graph.initializer.append(onnx.numpy_helper.from_array(feeds.pop("mask"), "mask"))
    del made.graph.input[[value.name for value in made.graph.input].index("mask")]
    checked(made, feeds, want, Decision(unit="onednn", precision="bf16"))


@needs_bf16
@needs_onednn
@pytest.mark.parametrize("precision", ["bf16", "split-bf16"])
def test_a_number_that_bfloat16_does_not_hold_is_declined(precision):
    feeds = {"x": np.ones((4, 32), "float32")}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Sigmoid", ["m"], ["s"]),
        helper.make_node("Mul", ["s", "least"], ["y"]),
    ]
    constants = {"w": np.ones((32, 32), "float32"), "least": np.float32(LEAST)}
    module = PartitionSubgraphs()(import_model(model(nodes, feeds, ["y"], constants)).module)
    _, declines = decisions_for(module, Decision(unit="onednn", precision=precision))
    assert any("got the number -3.4" in reason for reason in declines), declines
