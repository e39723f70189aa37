"""Small Relax modules that the pass tests share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tvm
from tvm import relax

from tests.reference import run_relax
from tvm_passes.ir import Expr


def module_of(
    emit: Callable[[relax.BlockBuilder, Expr], Expr], shape: tuple[int, ...] = (1, 16, 8, 8)
) -> tvm.IRModule:
    """A module whose `main` takes one f32 tensor of `shape` and returns what `emit` emits."""
    x = relax.Var("x", relax.TensorType(shape, "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(emit(builder, x))
        builder.emit_func_output(result)
    return builder.finalize()


def weight(*shape: int, seed: int = 0) -> relax.Constant:
    """A seeded random f32 constant."""
    array = np.random.default_rng(seed).standard_normal(shape) * 0.2
    return relax.const(array.astype("float32"))


def conv(x: Expr, channels: int = 16, out: int = 16, kernel: int = 3, seed: int = 0) -> Expr:
    """A convolution that keeps height and width."""
    return relax.op.nn.conv2d(
        x, weight(out, channels, kernel, kernel, seed=seed), padding=kernel // 2
    )


def run(module: tvm.IRModule, *inputs: np.ndarray) -> list[np.ndarray]:
    """Run `main` through stock TVM."""
    return run_relax(module, inputs)
