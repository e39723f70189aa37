"""Sub-graphs with shapes drawn from the space that real networks use: what a cost model learns from beside networks.

A sweep is an ordinary module, of many sub-graphs that have nothing to do with each other, so that it is imported,
partitioned and measured like any model. Equal seeds give equal sweeps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import tvm
from tvm import relax

from tvm_passes.ir import Expr

_CHANNELS = (
    *(16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 120, 128, 144, 160, 192, 224, 240, 256, 288, 320),
    *(384, 448, 480, 512, 576, 640, 672, 768, 832, 960, 1024, 1152, 1280, 1536, 2048),
)
_SIDES = (
    *(7, 8, 10, 13, 14, 14, 16, 17, 20, 24, 26, 27, 28, 28, 32, 35, 40, 48, 52, 56, 56, 64, 80),
    *(104, 112, 128, 160, 224),
)
_TOKENS = (1, 1, 1, 16, 49, 50, 64, 128, 128, 196, 197, 256, 384)
_FLOPS = (1e5, 2.5e9)
_WIDTH = (600, 32_000)
"""Channels times side: networks have many channels where images are small."""
_MOST_BYTES = 24 << 20
"""Of the weights, and of each input; concatenating and up-sampling give several times that."""

Emit = Callable[[relax.BlockBuilder, Sequence[Expr]], Expr]


@dataclass(frozen=True)
class _Drawn:
    """One sub-graph."""

    inputs: tuple[tuple[int, ...], ...]
    emit: Emit
    weight_bytes: int = 0
    flops: float = 1e6

    @property
    def is_usual(self) -> bool:
        """Whether it is neither tiny nor huge."""
        largest = max(4 * prod(shape) for shape in self.inputs)
        return (
            _FLOPS[0] <= self.flops <= _FLOPS[1] and max(largest, self.weight_bytes) <= _MOST_BYTES
        )


class _Draw:
    """Draws sub-graphs; one per generator state."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def pick(self, choices: Sequence[int]) -> int:
        return int(choices[int(self.rng.integers(len(choices)))])

    def channels(self, most: int = 2048) -> int:
        if self.rng.random() < 0.7:
            return self.pick([c for c in _CHANNELS if c <= most])
        return 8 * round(float(np.exp(self.rng.uniform(0, np.log(most / 8)))))

    def constant(self, *shape: int) -> Expr:
        return relax.const(self.rng.standard_normal(shape, dtype=np.float32) * np.float32(0.1))

    def tail(self, shape: tuple[int, ...]) -> tuple[Emit, int]:
        """What follows a product of `shape`, and how many further inputs of that shape it reads."""
        axis_shape = (1, shape[1], 1, 1) if len(shape) == 4 else (shape[-1],)
        bias = self.constant(*axis_shape)
        op = relax.op

        def biased(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
            return b.emit(op.add(values[0], bias))

        def relu(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
            return b.emit(op.nn.relu(biased(b, values)))

        def clipped(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
            return b.emit(op.clip(biased(b, values), 0, 6))

        def activated(function: Callable[[Expr], Expr]) -> Emit:
            return lambda b, values: b.emit(function(biased(b, values)))

        def residual(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
            return b.emit(op.add(biased(b, values), values[1]))

        def residual_relu(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
            return b.emit(op.nn.relu(residual(b, values)))

        tails: list[tuple[float, Emit, int]] = [
            (0.30, relu, 0),
            (0.20, biased, 0),
            (0.08, lambda _, values: values[0], 0),
            (0.10, clipped, 0),
            (0.08, activated(op.nn.silu), 0),
            (0.05, activated(op.nn.gelu), 0),
            (0.09, residual, 1),
            (0.10, residual_relu, 1),
        ]
        weights = np.array([weight for weight, _, _ in tails])
        _, emit, more = tails[int(self.rng.choice(len(tails), p=weights / weights.sum()))]
        return emit, more

    def convolution(self) -> _Drawn:
        kernel = self.pick((1, 1, 1, 1, 3, 3, 3, 3, 5, 7))
        return self._convolution(
            self.channels() if self.rng.random() < 0.95 else 3, self.channels(), kernel, 1
        )

    def depthwise(self) -> _Drawn:
        channels = self.channels(1152)
        return self._convolution(channels, channels, self.pick((3, 3, 5, 7)), channels)

    def grouped(self) -> _Drawn:
        groups = self.pick((2, 3, 4, 8, 16, 32))
        inputs, outputs = (groups * self.pick((4, 8, 16, 24, 32, 64)) for _ in range(2))
        return self._convolution(inputs, outputs, self.pick((1, 3, 3)), groups)

    def _convolution(self, inputs: int, outputs: int, kernel: int, groups: int) -> _Drawn:
        side, stride = self.pick(_SIDES), self.pick((1, 1, 1, 2))
        padding = kernel // 2
        out = (side + 2 * padding - kernel) // stride + 1
        shape, result = (1, inputs, side, side), (1, outputs, out, out)
        weight_shape = (outputs, inputs // groups, kernel, kernel)
        flops = 2.0 * prod(result) * prod(weight_shape[1:])
        usual = all(c == 3 or _WIDTH[0] <= c * s <= _WIDTH[1] for _, c, _, s in (shape, result))
        if not usual or not _FLOPS[0] <= flops <= _FLOPS[1]:
            return _Drawn((shape,), lambda _, values: values[0], flops=0.0)
        tail, more = self.tail(result)
        weight = self.constant(*weight_shape)

        def emit(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
            product = relax.op.nn.conv2d(
                values[0], weight, strides=stride, padding=padding, groups=groups
            )
            return tail(b, [b.emit(product), *values[1:]])

        return _Drawn((shape,) + (result,) * more, emit, 4 * prod(weight_shape), flops)

    def product(self) -> _Drawn:
        rows, depth, columns = self.pick(_TOKENS), self.channels(4096), self.channels(4096)
        shape = (1, rows, depth) if rows > 1 else (1, depth)
        result = (*shape[:-1], columns)
        tail, more = self.tail(result)
        weight = self.constant(depth, columns)

        def emit(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
            return tail(b, [b.emit(relax.op.matmul(values[0], weight)), *values[1:]])

        flops = 2.0 * rows * depth * columns
        return _Drawn((shape,) + (result,) * more, emit, 4 * depth * columns, flops)

    def pixel_product(self) -> _Drawn:
        """A linear layer over the channels of an image that lies channels last, as in ConvNeXt."""
        side, depth, columns = self.pick((7, 14, 28, 56)), self.channels(1024), self.channels(2048)
        shape = (1, side, side, depth)
        weight, bias = self.constant(depth, columns), self.constant(columns)

        def emit(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
            return b.emit(relax.op.add(b.emit(relax.op.matmul(values[0], weight)), bias))

        flops = 2.0 * side * side * depth * columns
        return _Drawn((shape,), emit, 4 * depth * columns, flops)

    def batched_product(self) -> _Drawn:
        heads, tokens, depth = self.pick((3, 6, 8, 12)), self.pick(_TOKENS[3:]), self.pick((32, 64))
        scores = self.rng.random() < 0.5
        left = (1, heads, tokens, depth if scores else tokens)
        right = (1, heads, depth, tokens) if scores else (1, heads, tokens, depth)
        return _Drawn(
            (left, right),
            lambda b, values: b.emit(relax.op.matmul(*values)),
            flops=2.0 * heads * tokens * tokens * depth,
        )

    def _image(self, most: int = 1024) -> tuple[int, ...]:
        while True:
            side = self.pick(_SIDES)
            shape = (1, self.channels(most), side, side)
            if 5e3 <= prod(shape) <= 2.5e6:
                return shape

    def pooling(self) -> _Drawn:
        shape = self._image()
        size, stride = self.pick((2, 3, 3)), self.pick((1, 2, 2))
        pool = relax.op.nn.max_pool2d if self.rng.random() < 0.6 else relax.op.nn.avg_pool2d
        padding, ceil = self.pick((0, 1)) if size == 3 else 0, bool(self.rng.random() < 0.3)
        return _Drawn(
            (shape,),
            lambda b, values: b.emit(
                pool(values[0], (size, size), stride, padding, ceil_mode=ceil)
            ),
        )

    def global_pooling(self) -> _Drawn:
        return _Drawn(
            (self._image(2048),), lambda b, values: b.emit(relax.op.mean(values[0], [2, 3], True))
        )

    def token_mean(self) -> _Drawn:
        shape = (1, self.pick(_TOKENS[3:]), self.channels(1024))
        return _Drawn((shape,), lambda b, values: b.emit(relax.op.mean(values[0], [1])))

    def upsampling(self) -> _Drawn:
        n, c, h, w = self._image(512)
        resize = relax.op.image.resize2d
        method = "nearest_neighbor" if self.rng.random() < 0.7 else "linear"
        return _Drawn(
            ((n, c, h, w),),
            lambda b, values: b.emit(
                resize(
                    values[0],
                    relax.ShapeExpr([2 * h, 2 * w]),
                    layout="NCHW",
                    method=method,
                    coordinate_transformation_mode="asymmetric",
                )
            ),
        )

    def transposed_convolution(self) -> _Drawn:
        n, c, h, w = self._image(512)
        outputs = max(c // 2, 8)
        weight = self.constant(c, outputs, 2, 2)
        flops = 8.0 * c * outputs * h * w
        return _Drawn(
            ((n, c, h, w),),
            lambda b, values: b.emit(
                relax.op.nn.conv2d_transpose(values[0], weight, strides=(2, 2))
            ),
            16 * c * outputs,
            flops,
        )

    def hard_swish(self) -> _Drawn:
        shape = self._image() if self.rng.random() < 0.7 else (1, self.channels(1280), 1, 1)
        op = relax.op

        def emit(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
            shifted = b.emit(op.add(values[0], relax.const(np.float32(3.0))))
            gate = b.emit(
                op.multiply(b.emit(op.clip(shifted, 0, 6)), relax.const(np.float32(1 / 6)))
            )
            return b.emit(op.multiply(values[0], gate))

        return _Drawn((shape,), emit)

    def permutation(self) -> _Drawn:
        """Between channels first and last, of images and of tokens."""
        n, c, h, w = self._image(1024)
        shapes = (
            ((n, c, h, w), (0, 2, 3, 1)),
            ((n, h, w, c), (0, 3, 1, 2)),
            ((n, h * w, c), (0, 2, 1)),
        )
        shape, axes = shapes[int(self.rng.integers(3))]
        return _Drawn((shape,), lambda b, values: b.emit(relax.op.permute_dims(values[0], axes)))

    def elementwise(self) -> _Drawn:
        if self.rng.random() < 0.2:
            return self._gate()
        shape = self._image() if self.rng.random() < 0.7 else (1, self.pick(_TOKENS[3:]), 768)
        op = relax.op
        scale = self.constant(*((1, shape[1], 1, 1) if len(shape) == 4 else (shape[-1],)))
        gate = (*shape[:2], 1, 1) if len(shape) == 4 else shape
        choices: list[tuple[tuple[tuple[int, ...], ...], Emit]] = [
            ((shape, shape), lambda b, v: b.emit(op.add(*v))),
            ((shape, shape), lambda b, v: b.emit(op.nn.relu(b.emit(op.add(*v))))),
            ((shape, gate), lambda b, v: b.emit(op.multiply(*v))),
            ((shape,), lambda b, v: b.emit(op.nn.relu(v[0]))),
            ((shape,), lambda b, v: b.emit(op.nn.silu(v[0]))),
            ((shape,), lambda b, v: b.emit(op.nn.gelu(v[0]))),
            ((shape,), lambda b, v: b.emit(op.multiply(v[0], scale))),
            ((shape,), lambda b, v: b.emit(op.sigmoid(v[0]))),
        ]
        inputs, emit = choices[int(self.rng.integers(len(choices)))]
        return _Drawn(inputs, emit)

    def _gate(self) -> _Drawn:
        """What squeeze-and-excitation does to a vector of channels."""
        shape = (1, self.channels(2048), 1, 1)
        op = relax.op
        functions = (op.nn.relu, op.nn.silu, op.sigmoid)
        function = functions[int(self.rng.integers(3))]
        return _Drawn((shape,), lambda b, values: b.emit(function(values[0])))

    def concat(self) -> _Drawn:
        first = self._image(512)
        count = self.pick((2, 2, 3, 4))
        shapes = [first] + [(1, self.channels(512), *first[2:]) for _ in range(count - 1)]
        return _Drawn(tuple(shapes), lambda b, values: b.emit(relax.op.concat(list(values), 1)))

    def concat_relu(self) -> _Drawn:
        joined = self.concat()
        return _Drawn(
            joined.inputs, lambda b, values: b.emit(relax.op.nn.relu(joined.emit(b, values)))
        )

    def softmax(self) -> _Drawn:
        heads, tokens = self.pick((3, 6, 8, 12)), self.pick(_TOKENS[3:])
        classes = int(np.exp(self.rng.uniform(np.log(10), np.log(22_000))))
        shape = (1, heads, tokens, tokens) if self.rng.random() < 0.5 else (1, classes)
        return _Drawn((shape,), lambda b, values: b.emit(relax.op.nn.softmax(values[0], -1)))

    def shuffle(self) -> _Drawn:
        n, c, h, w = self._image()
        groups = self.pick((2, 3, 4, 8))
        c = groups * max(c // groups, 2)
        split, axes = (n, groups, c // groups, h, w), (0, 2, 1, 3, 4)

        def emit(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
            parts = b.emit(relax.op.reshape(values[0], split))
            mixed = b.emit(relax.op.permute_dims(parts, axes))
            return b.emit(relax.op.reshape(mixed, (n, c, h, w)))

        return _Drawn(((n, c, h, w),), emit)

    def flattening(self) -> _Drawn:
        shape = self._image()
        return _Drawn(
            (shape,), lambda b, values: b.emit(relax.op.reshape(values[0], (1, prod(shape))))
        )

    def normalization(self) -> _Drawn:
        width = self.pick((96, 192, 384, 512, 768, 1024))
        shape = (1, self.pick(_TOKENS[3:]), width)
        scale, shift = self.constant(width), self.constant(width)
        return _Drawn(
            (shape,),
            lambda b, values: b.emit(relax.op.nn.layer_norm(values[0], scale, shift, [-1])),
        )

    def movement(self) -> _Drawn:
        heads, tokens, depth = self.pick((3, 6, 8, 12)), self.pick(_TOKENS[3:]), self.pick((32, 64))
        axes = (0, 2, 1, 3)
        return _Drawn(
            ((1, tokens, heads, depth),),
            lambda b, values: b.emit(relax.op.permute_dims(values[0], axes)),
        )


_KINDS: tuple[tuple[float, Callable[[_Draw], _Drawn]], ...] = (
    (0.36, _Draw.convolution),
    (0.10, _Draw.depthwise),
    (0.08, _Draw.grouped),
    (0.08, _Draw.product),
    (0.03, _Draw.batched_product),
    (0.08, _Draw.pooling),
    (0.03, _Draw.global_pooling),
    (0.09, _Draw.elementwise),
    (0.05, _Draw.concat),
    (0.02, _Draw.concat_relu),
    (0.03, _Draw.softmax),
    (0.02, _Draw.normalization),
    (0.015, _Draw.movement),
    (0.03, _Draw.permutation),
    (0.02, _Draw.pixel_product),
    (0.015, _Draw.token_mean),
    (0.02, _Draw.upsampling),
    (0.015, _Draw.transposed_convolution),
    (0.03, _Draw.hard_swish),
    (0.02, _Draw.shuffle),
    (0.01, _Draw.flattening),
)
"""How often each kind is drawn."""


def _usual(draw: _Draw, kind: Callable[[_Draw], _Drawn]) -> _Drawn:
    """Draw until it is neither tiny nor huge."""
    while not (one := kind(draw)).is_usual:
        pass
    return one


def sweep_module(count: int, seed: int = 0) -> tvm.IRModule:
    """Make a module of `count` independent sub-graphs."""
    draw = _Draw(seed)
    shares = np.array([share for share, _ in _KINDS])
    kinds = draw.rng.choice(len(_KINDS), size=count, p=shares / shares.sum())
    drawn = [_usual(draw, _KINDS[int(kind)][1]) for kind in kinds]
    params = [
        [
            relax.Var(f"x{i}_{j}", relax.TensorType(shape, "float32"))
            for j, shape in enumerate(one.inputs)
        ]
        for i, one in enumerate(drawn)
    ]
    builder = relax.BlockBuilder()
    with builder.function("main", [param for group in params for param in group]):
        with builder.dataflow():
            results = [one.emit(builder, group) for one, group in zip(drawn, params, strict=True)]
            output = builder.emit_output(relax.Tuple(results))
        builder.emit_func_output(output)
    return builder.finalize()
