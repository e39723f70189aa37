"""Small sub-graphs of every kind, which several units are tried on."""

from __future__ import annotations

import numpy as np
from tvm import relax

from tvm_passes.ir import constant_of


def weights(*shape, seed=0):
    generator = np.random.default_rng(seed)
    return relax.const((0.1 * generator.standard_normal(shape)).astype("float32"))


def convolution(x, out, kernel, *, bias=True, groups=1, **attributes):
    channels = int(x.ty.shape[1]) // groups
    result = relax.op.nn.conv2d(
        x, weights(out, channels, kernel, kernel), groups=groups, **attributes
    )
    return relax.op.add(result, weights(1, out, 1, 1, seed=1)) if bias else result


BODIES = {
    "same": (lambda x: relax.op.nn.relu(convolution(x, 32, 3, padding=(1, 1))), [(1, 16, 7, 9)]),
    "stem": (lambda x: convolution(x, 32, 7, strides=(2, 2), padding=(3, 3)), [(1, 3, 15, 17)]),
    "pointwise": (lambda x: convolution(x, 48, 1, bias=False), [(1, 32, 5, 5)]),
    "few results": (lambda x: convolution(x, 10, 1), [(1, 32, 5, 5)]),
    "strided": (lambda x: convolution(x, 16, 3, strides=(2, 2)), [(2, 32, 9, 9)]),
    "depthwise": (lambda x: convolution(x, 32, 3, groups=32, padding=(1, 1)), [(1, 32, 6, 6)]),
    "one channel": (lambda x: convolution(x, 32, 1), [(2, 1, 6, 6)]),
    "single terms": (lambda x: convolution(x, 64, 1, groups=32), [(2, 32, 6, 6)]),
    "grouped": (lambda x: convolution(x, 32, 3, groups=4, padding=(1, 1)), [(1, 64, 6, 6)]),
    "dilated": (lambda x: convolution(x, 16, 3, dilation=(2, 2)), [(1, 16, 9, 9)]),
    "residual": (
        lambda x, y: relax.op.nn.relu(relax.op.add(y, convolution(x, 32, 1))),
        [(1, 16, 6, 6), (1, 32, 6, 6)],
    ),
    "pooling": (
        lambda x: relax.op.nn.max_pool2d(x, (3, 3), (2, 2), padding=(1, 1)),
        [(1, 32, 8, 8)],
    ),
    "averages": (
        lambda x: relax.op.add(
            relax.op.nn.avg_pool2d(x, (3, 3), padding=(1, 1)), weights(1, 32, 1, 1)
        ),
        [(2, 32, 8, 8)],
    ),
    "mean": (lambda x: relax.op.mean(x, [2, 3], keepdims=True), [(1, 32, 8, 8)]),
    "element-wise": (
        lambda x: relax.op.sigmoid(relax.op.multiply(x, weights(1, 32, 1, 1))),
        [(1, 32, 8, 8)],
    ),
    "rows by index": (
        lambda x: relax.op.nn.relu(relax.op.take(x, constant_of(np.array([2, 0, 5])), axis=2)),
        [(1, 32, 6, 6)],
    ),
    "softmax": (lambda x: relax.op.nn.softmax(x, axis=1), [(1, 32, 3, 3)]),
    "large": (lambda x: relax.op.nn.relu(convolution(x, 72, 3, padding=(1, 1))), [(1, 64, 12, 12)]),
    "kernel of activations": (relax.op.nn.conv2d, [(1, 4, 8, 8), (4, 4, 3, 3)]),
    "mean to a scalar": (relax.op.mean, [(1, 32, 8, 8)]),
    "product": (lambda x: relax.op.matmul(x, weights(24, 40)), [(3, 24)]),
}
"""By name: what builds the result from the inputs, and their shapes."""
