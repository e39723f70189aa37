"""Pieces of networks, each a function of a drawing and a value: what our passes fuse, lay out or rewrite, and their like.

A piece returns the name of its result. Tables say which pieces go with images (NCHW), tokens (batch, length, features)
and any tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from fuzzing.drawing import Drawing, Value

Piece = Callable[[Drawing, Value], str]


def activation(d: Drawing, x: Value | str) -> str:
    """One activation, as one node or composed as exporters write it."""
    simple = ("Relu", "Sigmoid", "Tanh", "Softplus", "HardSwish", "Erf", "Mish", "Softsign")
    kind = int(d.rng.integers(8))
    if kind < 3:
        return d.op(d.pick(*simple), x)
    if kind == 3:
        return d.op(d.pick("LeakyRelu", "Elu", "Celu"), x, alpha=0.3)
    if kind == 4:
        return d.op("Clip", x, d.number(d.pick(0.0, -1.0)), d.number(d.pick(6.0, 1.0)))
    if kind == 5:
        return d.op("Mul", x, d.op(d.pick("Sigmoid", "HardSigmoid"), x))
    if kind == 6:
        scaled = d.op("Erf", d.op("Div", x, d.number(float(np.sqrt(2)))))
        return d.op("Mul", d.op("Mul", x, d.op("Add", scaled, d.number(1.0))), d.number(0.5))
    six = d.op("Clip", d.op("Add", x, d.number(3.0)), d.number(0.0), d.number(6.0))
    return d.op("Div", d.op("Mul", x, six), d.number(6.0))


def _norm(d: Drawing, x: str, channels: int) -> str:
    """Inference batch normalisation, or the scale and shift that it amounts to."""
    if d.chance(0.7):
        rest = (d.weight(channels), d.weight(channels), d.positive(channels))
        return d.op("BatchNormalization", x, d.positive(channels), *rest)
    shape = (channels, 1, 1)
    return d.op("Add", d.op("Mul", x, d.positive(*shape)), d.weight(*shape))


def convolution(d: Drawing, x: Value) -> str:
    """A convolution of any kind, with what follows convolutions."""
    channels = x.shape[1]
    groups = d.pick(1, 1, 1, channels, *(g for g in (2, 4) if channels % g == 0))
    outputs = groups * d.pick(1, 2, 4) if groups > 1 else d.pick(1, 3, 8, 16, 20, 32)
    kernel = [d.pick(1, 1, 2, 3, 3, 5), d.pick(1, 1, 2, 3, 3, 5)]
    if d.chance(0.6):
        kernel[1] = kernel[0]
    dilations = [d.pick(1, 1, 1, 2), d.pick(1, 1, 1, 2)]
    spans = [(k - 1) * dilation + 1 for k, dilation in zip(kernel, dilations, strict=True)]
    pads = [int(d.rng.integers(0, span)) for span in (*spans, *spans)]
    if d.chance(0.6):
        pads = [span // 2 for span in (*spans, *spans)]
    room = [x.shape[2 + i] + pads[i] + pads[i + 2] - spans[i] for i in range(2)]
    if min(room) < 0:
        kernel, dilations, pads = [1, 1], [1, 1], [0, 0, 0, 0]
    weight = d.weight(outputs, channels // groups, *kernel)
    bias = (d.weight(outputs),) if d.chance(0.5) else ()
    strides = [d.pick(1, 1, 1, 2, 3)] * 2
    result = d.op(
        "Conv", x, weight, *bias, group=groups, strides=strides, pads=pads, dilations=dilations,
    )  # fmt: skip
    if d.chance(0.4):
        result = _norm(d, result, outputs)
    return activation(d, result) if d.chance(0.6) else result


def transposed_convolution(d: Drawing, x: Value) -> str:
    """A transposed convolution that enlarges."""
    channels, stride = x.shape[1], d.pick(1, 2)
    groups = d.pick(1, 1, channels)
    kernel = d.pick(2, 3, 4)
    outputs = d.pick(1, 2, 4) if groups == 1 else 1
    weight = d.weight(channels, outputs, kernel, kernel, fan_in=channels * kernel)
    extra = [d.pick(0, 1)] * 2 if stride == 2 else [0, 0]
    pads = [int(d.rng.integers(0, 2))] * 4 if min(x.shape[2:]) > 2 else [0] * 4
    return d.op(
        "ConvTranspose",
        x,
        weight,
        group=groups,
        strides=[stride] * 2,
        pads=pads,
        output_padding=extra,
    )


def residual(d: Drawing, x: Value) -> str:
    """A residual block, with the sum before or behind the activation."""
    channels = x.shape[1]
    y = activation(d, d.op("Conv", x, d.weight(channels, channels, 3, 3), pads=[1] * 4))
    y = d.op("Conv", y, d.weight(channels, channels, 1, 1), d.weight(channels))
    total = d.op("Add", *((x, y) if d.chance(0.5) else (y, x)))
    return activation(d, total) if d.chance(0.7) else total


def squeeze_excite(d: Drawing, x: Value) -> str:
    """A gate of every channel."""
    channels = x.shape[1]
    y = d.op("GlobalAveragePool", x) if d.chance(0.5) else _mean(d, x, (2, 3), keep=1)
    y = d.op("Relu", d.op("Conv", y, d.weight(4, channels, 1, 1), d.weight(4)))
    y = d.op("Conv", y, d.weight(channels, 4, 1, 1), d.weight(channels))
    return d.op("Mul", x, d.op(d.pick("Sigmoid", "HardSigmoid"), y))


def branches(d: Drawing, x: Value) -> str:
    """Branches that are concatenated, as in inception, fire and dense blocks."""
    parts: list[Value | str] = [x] if d.chance(0.4) else []
    for kernel in (1, d.pick(1, 3), 5)[: d.pick(2, 3)]:
        weight = d.weight(d.pick(4, 8, 16), x.shape[1], kernel, kernel)
        parts.append(d.op("Relu", d.op("Conv", x, weight, pads=[kernel // 2] * 4)))
    if d.chance(0.4):
        kind = d.pick("MaxPool", "AveragePool")
        parts.append(d.op(kind, x, kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1]))
    joined = d.op("Concat", *parts, axis=1)
    return activation(d, joined) if d.chance(0.3) else joined


def pooling(d: Drawing, x: Value) -> str:
    """A pooling with a window that may be larger than the image."""
    height, width = x.shape[2:]
    sizes = (1, 2, 2, 3, 3, 5, max(height, width) + 2, 40)
    kernel = [d.pick(*sizes), d.pick(*sizes)]
    pads = [int(d.rng.integers(0, min(k, 20))) if d.chance(0.5) else 0 for k in kernel] * 2
    room = [size + 2 * pad - k for size, pad, k in zip((height, width), pads, kernel, strict=False)]
    if min(room) < 0:
        kernel, pads = [min(kernel[0], height), min(kernel[1], width)], [0] * 4
    options = {"kernel_shape": kernel, "strides": [d.pick(1, 2), d.pick(1, 2, 3)], "pads": pads}
    options["ceil_mode"] = int(d.chance(0.3))
    if d.chance(0.5):
        return d.op("MaxPool", x, **options)
    return d.op("AveragePool", x, count_include_pad=int(d.chance(0.5)), **options)


def resize(d: Drawing, x: Value) -> str:
    """An image twice as large, or of another size."""
    mode = d.pick("nearest", "linear")
    coordinates = d.pick("asymmetric", "half_pixel", "align_corners")
    scales = d.constant(np.array([1, 1, d.pick(1, 2), d.pick(2, 3)], "float32"))
    options = {"nearest_mode": d.pick("floor", "round_prefer_floor")} if mode == "nearest" else {}
    return d.op(
        "Resize", x, "", scales, mode=mode, coordinate_transformation_mode=coordinates, **options
    )


def shuffle(d: Drawing, x: Value) -> str:
    """Channels regrouped, or pixels moved into channels."""
    n, c, h, w = x.shape
    if c % 2 == 0 and d.chance(0.6):
        split = d.op("Reshape", x, d.ints(n, 2, c // 2, h, w))
        return d.op("Reshape", d.op("Transpose", split, perm=[0, 2, 1, 3, 4]), d.ints(n, c, h, w))
    if c % 4 == 0:
        return d.op("DepthToSpace", x, blocksize=2, mode=d.pick("DCR", "CRD"))
    if h % 2 == 0 and w % 2 == 0:
        return d.op("SpaceToDepth", x, blocksize=2)
    return d.op("Transpose", x, perm=[0, 1, 3, 2])


def halves(d: Drawing, x: Value) -> str:
    """Channels divided, one part processed, and joined again."""
    c = x.shape[1]
    if c < 2:
        return activation(d, x)
    cut = d.pick(1, c // 2)
    first = d.op("Split", x, d.ints(cut, c - cut), outputs=2, axis=1)
    parts = [activation(d, first), f"{first}_1"]
    return d.op("Concat", *(parts if d.chance(0.5) else reversed(parts)), axis=1)


def image_norm(d: Drawing, x: Value) -> str:
    """A normalisation of images at run time."""
    n, c, h, w = x.shape
    if h * w < 4:
        return activation(d, x)
    kind = d.pick("instance", "group", "lrn", "mvn", "layer")
    if kind == "instance":
        return d.op("InstanceNormalization", x, d.positive(c), d.weight(c))
    if kind == "group":
        groups = d.pick(*(g for g in (1, 2, 4) if c % g == 0))
        flat = d.op("Reshape", x, d.ints(n, groups, -1))
        ones, zeros = (d.constant(np.full(groups, v, "float32")) for v in (1, 0))
        y = d.op("Reshape", d.op("InstanceNormalization", flat, ones, zeros), d.ints(*x.shape))
        return d.op("Add", d.op("Mul", y, d.positive(c, 1, 1)), d.weight(c, 1, 1))
    if kind == "lrn":
        return d.op("LRN", x, size=d.pick(3, 5), alpha=0.01)
    if kind == "mvn":
        return d.op("MeanVarianceNormalization", x, axes=[0, 2, 3])
    y = d.op("Transpose", x, perm=[0, 2, 3, 1])
    y = d.op("LayerNormalization", y, d.positive(c), d.weight(c)) if c > 3 else y
    return d.op("Transpose", y, perm=[0, 3, 1, 2])


def padded(d: Drawing, x: Value) -> str:
    """Borders added or cut."""
    if d.chance(0.5) or min(x.shape[2:]) < 3:
        pads = [0, 0, *d.rng.integers(0, 3, 2).tolist(), 0, 0, *d.rng.integers(0, 3, 2).tolist()]
        mode = d.pick("constant", "edge", "reflect") if min(x.shape[2:]) > 2 else "constant"
        return d.op("Pad", x, d.ints(*pads), mode=mode)
    step = d.pick(1, 2)
    return d.op("Slice", x, d.ints(1, 0), d.ints(x.shape[2], -1), d.ints(2, 3), d.ints(1, step))


def quantised(d: Drawing, x: Value) -> str:
    """A convolution between quantisations, as ONNX Runtime's quantiser writes it."""
    c, outputs = x.shape[1], d.pick(4, 8, 16)
    zero = d.constant(np.array(d.pick(0, 128), "uint8"))
    scale = d.number(0.02)
    y = d.op("DequantizeLinear", d.op("QuantizeLinear", x, scale, zero), scale, zero)
    kernel = d.pick(1, 3)
    integers = d.constant(d.rng.integers(-127, 128, (outputs, c, kernel, kernel)).astype("int8"))
    weight_scale = d.constant((0.002 + 0.01 * d.rng.random(outputs)).astype("float32"))
    weight = d.op(
        "DequantizeLinear", integers, weight_scale, d.constant(np.zeros(outputs, "int8")), axis=0
    )
    result = d.op("Conv", y, weight, d.weight(outputs), pads=[kernel // 2] * 4)
    return d.op("Relu", result) if d.chance(0.5) else result


def generated_weights(d: Drawing, x: Value) -> str:
    """A convolution whose weights depend on the input."""
    n, c = x.shape[:2]
    if n != 1:
        return residual(d, x)
    mean = d.op("Reshape", d.op("GlobalAveragePool", x), d.ints(1, c))
    outputs, kernel = d.pick(4, 8), d.pick(1, 3)
    flat = d.op("MatMul", mean, d.weight(c, outputs * c * kernel * kernel, fan_in=c * c))
    weight = d.op("Reshape", flat, d.ints(outputs, c, kernel, kernel))
    return d.op("Conv", x, weight, pads=[kernel // 2] * 4)


def standardised_weights(d: Drawing, x: Value) -> str:
    """A convolution whose constant weights are standardised in the graph."""
    c, outputs = x.shape[1], d.pick(4, 8)
    weight = d.op("Reshape", d.weight(outputs, c, 3, 3), d.ints(1, outputs, -1))
    ones, zeros = (d.constant(np.full(outputs, v, "float32")) for v in (1, 0))
    y = d.op("BatchNormalization", weight, ones, zeros, zeros, ones, outputs=3, training_mode=1)
    return d.op("Conv", x, d.op("Reshape", y, d.ints(outputs, c, 3, 3)), pads=[1] * 4)


def to_tokens(d: Drawing, x: Value) -> str:
    """Pixels as tokens."""
    n, c, h, w = x.shape
    return d.op("Transpose", d.op("Reshape", x, d.ints(n, c, h * w)), perm=[0, 2, 1])


def to_vector(d: Drawing, x: Value) -> str:
    """A head: pooled, flattened, multiplied."""
    pooled = d.op(d.pick("GlobalAveragePool", "GlobalMaxPool"), x)
    flat = d.op("Flatten", pooled)
    outputs = d.pick(1, 10, 16)
    weight = d.weight(outputs, x.shape[1])
    result = d.op("Gemm", flat, weight, d.weight(outputs), transB=1)
    return d.op("Softmax", result, axis=-1) if d.chance(0.5) else result


def linear(d: Drawing, x: Value) -> str:
    """A product with a constant matrix, with what follows it."""
    features, outputs = x.shape[-1], d.pick(1, 8, 16, 24, 33)
    y = d.op("MatMul", x, d.weight(features, outputs, fan_in=features))
    if d.chance(0.7):
        y = d.op("Add", *((y, d.weight(outputs)) if d.chance(0.5) else (d.weight(outputs), y)))
    return activation(d, y) if d.chance(0.5) else y


def layer_norm(d: Drawing, x: Value) -> str:
    """A layer or RMS normalisation, as one node or composed."""
    features = x.shape[-1]
    if features < 4:
        return linear(d, x)
    kind = d.pick("node", "composed", "rms")
    if kind == "node":
        return d.op("LayerNormalization", x, d.positive(features), d.weight(features), axis=-1)
    centred = x if kind == "rms" else d.op("Sub", x, _mean(d, x, (-1,), keep=1))
    variance = _mean(d, d.op("Pow", centred, d.number(2.0)), (-1,), keep=1)
    deviation = d.op("Sqrt", d.op("Add", variance, d.number(1e-5)))
    return d.op("Mul", d.op("Div", centred, deviation), d.positive(features))


def attention(d: Drawing, x: Value) -> str:
    """Self-attention with heads, perhaps masked."""
    n, length, features = x.shape
    heads, size = d.pick(1, 2, 4), 4
    inner = heads * size

    def head(axes: list[int]) -> str:
        y = d.op("MatMul", x, d.weight(features, inner, fan_in=features))
        return d.op("Transpose", d.op("Reshape", y, d.ints(n, length, heads, size)), perm=axes)

    query, key, value = head([0, 2, 1, 3]), head([0, 2, 3, 1]), head([0, 2, 1, 3])
    scores = d.op("Div", d.op("MatMul", query, key), d.number(2.0))
    if d.chance(0.4):
        mask = np.triu(np.full((length, length), d.pick(-1e4, -np.inf, -3.4028235e38)), 1)
        scores = d.op("Add", scores, d.constant(mask.astype("float32")))
    mixed = d.op("MatMul", d.op("Softmax", scores, axis=-1), value)
    joined = d.op("Reshape", d.op("Transpose", mixed, perm=[0, 2, 1, 3]), d.ints(n, length, inner))
    return d.op("Add", x, d.op("MatMul", joined, d.weight(inner, features, fan_in=inner)))


def token_mlp(d: Drawing, x: Value) -> str:
    """A perceptron around a residual."""
    features = x.shape[-1]
    y = activation(d, d.op("MatMul", x, d.weight(features, 2 * features, fan_in=features)))
    y = d.op("MatMul", y, d.weight(2 * features, features, fan_in=2 * features))
    return d.op("Add", x, y)


def to_image(d: Drawing, x: Value) -> str:
    """Tokens as an image one pixel high."""
    n, length, features = x.shape
    return d.op("Reshape", d.op("Transpose", x, perm=[0, 2, 1]), d.ints(n, features, 1, length))


def _mean(d: Drawing, x: Value | str, axes: tuple[int, ...], keep: int) -> str:
    return d.op("ReduceMean", x, d.ints(*axes), keepdims=keep)


def reduction(d: Drawing, x: Value) -> str:
    """A reduction over some axes."""
    kinds = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceLogSumExp")
    count = int(d.rng.integers(1, x.rank))
    axes = sorted(d.rng.choice(x.rank, count, replace=False).tolist())
    return d.op(d.pick(*kinds), x, d.ints(*axes), keepdims=int(d.chance(0.6)))


def elementwise(d: Drawing, x: Value) -> str:
    """An operator with a constant that is broadcast, or with another view of the same value."""
    kind = d.pick("Add", "Sub", "Mul", "Div", "Max", "Min", "PRelu", "Where")
    shape = tuple(size if d.chance(0.5) else 1 for size in x.shape)[int(d.rng.integers(x.rank)) :]
    if kind == "PRelu":
        return d.op("PRelu", x, d.positive(*shape))
    if kind == "Where":
        return d.op("Where", d.op("Greater", x, d.number(0.0)), x, d.weight(*shape, fan_in=1))
    other = d.positive(*shape)
    return d.op(kind, x, other) if kind == "Div" or d.chance(0.5) else d.op(kind, other, x)


def softmax(d: Drawing, x: Value) -> str:
    """A softmax along any axis."""
    return d.op(d.pick("Softmax", "LogSoftmax"), x, axis=int(d.rng.integers(x.rank)))


def gathered(d: Drawing, x: Value) -> str:
    """Some rows along an axis, by constant indices."""
    axis = int(d.rng.integers(x.rank))
    size = x.shape[axis]
    indices = d.rng.integers(-size, size, d.pick(1, 2, 5)).tolist()
    return d.op("Gather", x, d.ints(*indices), axis=axis)


def permuted(d: Drawing, x: Value) -> str:
    """Axes in another order, twice, with something between."""
    order = d.rng.permutation(x.rank).tolist()
    back = np.argsort(order).tolist()
    return d.op("Transpose", activation(d, d.op("Transpose", x, perm=order)), perm=back)


IMAGE: Mapping[str, Piece] = {
    piece.__name__: piece
    for piece in (
        convolution, transposed_convolution, residual, squeeze_excite, branches, pooling, resize, shuffle, halves,
        image_norm, padded, quantised, generated_weights, standardised_weights, to_tokens, to_vector,
    )
}  # fmt: skip
TOKENS: Mapping[str, Piece] = {
    piece.__name__: piece for piece in (linear, layer_norm, attention, token_mlp, to_image)
}
ANY: Mapping[str, Piece] = {
    piece.__name__: piece for piece in (linear, reduction, elementwise, softmax, gathered, permuted)
}
BY_RANK: Mapping[int, Mapping[str, Piece]] = {4: IMAGE, 3: TOKENS}
OFTEN_BY_RANK = 0.8
"""Share of pieces that are those of the value's rank."""
