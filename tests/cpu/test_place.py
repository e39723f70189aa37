"""Concatenation in place: no copies where parts can be written into the whole, the same values everywhere."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
import tvm
from tiers import tiered
from tvm import relax

from tests.amx.support import needs_amx
from tests.cpu.support import (
    TARGET,
    TOLERANCE,
    Body,
    finish,
    model,
    random_array,
    weights,
)
from tests.reference import relative_error, run_relax
from tvm_passes.backends import BACKENDS
from tvm_passes.cpu.host import has_bf16
from tvm_passes.decision import Decision
from tvm_passes.ir import main_bindings, op_name
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.rewrite_layouts import RewriteLayouts, subgraph_id

nn, op = relax.op.nn, relax.op
SHAPE = (1, 32, 9, 7)
needs_bf16 = pytest.mark.skipif(
    not has_bf16(TARGET), reason="the CPU has no AVX512_BF16: the unit declines bf16"
)
F32 = [Decision(unit="cpu", layout=layout) for layout in ("NCHW", "NHWC", "NCHW16c")]
STORED = [
    pytest.param(Decision.parse(text), marks=needs_bf16, id=text)
    for text in ("cpu:NHWC:split-bf16", "cpu:NCHW32c:bf16", "cpu:NCHW:bf16")
]
DAILY_STORED = [
    STORED[1],
    STORED[2],
    pytest.param(*STORED[0].values, marks=[needs_bf16, pytest.mark.nightly], id=STORED[0].id),
]
"""The same; those of pairs, which LLVM compiles for seconds, are nightly."""
TILES = [
    pytest.param(Decision.parse(text), marks=needs_amx, id=text)
    for text in ("amx:NHWC:bf16", "amx:NCHW32c:split-bf16")
]
ROUNDING = {"f32": TOLERANCE, "bf16": 3e-2, "split-bf16": 2e-5}


def lowered(module: tvm.IRModule, decision: Decision) -> tvm.IRModule:
    """Stage 4: whoever supports `decision` or its like on the CPU gets it, the others the plain layout."""
    partitioned = PartitionSubgraphs()(module)
    wanted = [decision, Decision(unit="cpu", layout=decision.layout, precision=decision.precision)]
    decisions = {
        subgraph_id(function): next(
            (d for d in wanted if BACKENDS[d.unit].supports(function, d) is None),
            Decision(unit="cpu"),
        )
        for function in partitioned.functions.values()
        if subgraph_id(function)
    }
    return BACKENDS["cpu"].lower(TARGET)(RewriteLayouts(decisions)(partitioned))


def calls(module: tvm.IRModule) -> Counter[str]:
    """How often each kind of kernel is called."""
    return Counter(
        binding.value.args[0].name_hint.rsplit("_", 1)[0]
        for binding in main_bindings(module["main"])
        if op_name(binding.value).startswith("call_tir")
    )


def check(body: Body, shapes: list[tuple[int, ...]], decision: Decision) -> Counter[str]:
    """Compare with stock TVM; the kernels that were called."""
    module = model(body, *shapes)
    ready = lowered(module, decision)
    arrays = [random_array(*shape, seed=index) for index, shape in enumerate(shapes)]
    # Twice: what is left in memory from before must not matter.
    machine = finish(ready)
    for _ in range(2):
        got = machine["main"](*map(tvm.runtime.tensor, arrays))
    results = [got] if isinstance(got, tvm.runtime.Tensor) else list(got)
    for result, expected in zip(results, run_relax(module, arrays), strict=True):
        assert relative_error(result.numpy(), expected) < ROUNDING[decision.precision]
    return calls(ready)


def tower(x: relax.Expr) -> relax.Expr:
    """A convolution of each size, a pooling and an element-wise part, read by a convolution."""
    parts = [
        nn.relu(nn.conv2d(x, weights(64, 32, 1, 1, seed=1))),
        nn.relu(nn.conv2d(x, weights(32, 32, 3, 3, seed=2), padding=1)),
        nn.max_pool2d(x, (3, 3), padding=(1, 1)),
        op.sigmoid(nn.max_pool2d(x, (5, 5), padding=(2, 2))),
    ]
    return nn.conv2d(op.concat(parts, axis=1), weights(32, 160, 1, 1, seed=3))


@pytest.mark.parametrize("batch", tiered([1, 3], (1,)))
@pytest.mark.parametrize("decision", [*F32, *STORED, *TILES], ids=str)
def test_all_parts_are_written_in_place(decision, batch):
    called = check(tower, [(batch, *SHAPE[1:])], decision)
    assert not any("concat" in name for name in called)


@pytest.mark.parametrize("decision", [*F32, *TILES], ids=str)
def test_a_densely_connected_block(decision):
    """Every part is a concatenation, which an element-wise sub-graph reads out of the whole."""

    def body(x):
        whole = nn.max_pool2d(x, (3, 3), padding=(1, 1))
        for index in range(3):
            depth = 32 * (index + 1)
            scaled = op.multiply(whole, weights(1, depth, 1, 1, seed=10 + index))
            wide = nn.relu(op.add(scaled, weights(1, depth, 1, 1, seed=20 + index)))
            new = nn.conv2d(wide, weights(32, depth, 3, 3, seed=30 + index), padding=1)
            whole = op.concat([whole, new], axis=1)
        return nn.avg_pool2d(whole, (2, 2))

    called = check(body, [SHAPE], decision)
    assert not any("concat" in name for name in called)


@pytest.mark.parametrize("decision", [*F32, *DAILY_STORED], ids=str)
def test_what_cannot_move_is_copied(decision):
    """An input of the model, a part that is read elsewhere, one that is taken twice and one that is returned."""

    def body(x):
        moved = nn.max_pool2d(x, (3, 3), padding=(1, 1))
        read = nn.avg_pool2d(x, (3, 3), padding=(1, 1))
        twice = nn.max_pool2d(x, (5, 5), padding=(2, 2))
        returned = nn.max_pool2d(x, (7, 7), padding=(3, 3))
        whole = op.concat([twice, x, moved, read, twice, returned], axis=1)
        return relax.Tuple([nn.avg_pool2d(whole, (2, 2)), nn.max_pool2d(read, (2, 2)), returned])

    called = check(body, [SHAPE], decision)
    assert called["cpu_concat"] == 1


@pytest.mark.parametrize("decision", F32, ids=str)
def test_two_concatenations_of_one_part(decision):
    """The first to be found has it; the other copies."""

    def body(x):
        first, second, shared = (
            nn.max_pool2d(x, (size, size), padding=(size // 2, size // 2)) for size in (3, 5, 7)
        )
        return op.concat(
            [
                nn.avg_pool2d(op.concat([first, shared], axis=1), (2, 2)),
                nn.max_pool2d(op.concat([shared, second], axis=1), (2, 2)),
            ],
            axis=1,
        )

    assert check(body, [SHAPE], decision)["cpu_concat"] == 2


@pytest.mark.parametrize("decision", F32, ids=str)
def test_an_epilogue_needs_a_copy(decision):
    def body(x):
        parts = [nn.max_pool2d(x, (size, size), padding=(size // 2, size // 2)) for size in (3, 5)]
        return nn.relu(op.concat(parts, axis=1))

    assert check(body, [SHAPE], decision)["cpu_concat"] == 1


ODD = [(5, 24, 1), (17, 3, 40)]


@pytest.mark.parametrize(
    ("decision", "channels"),
    [
        *product(F32[:2], ODD),
        pytest.param(*STORED[0].values, ODD[0], marks=needs_bf16),
        pytest.param(*STORED[0].values, ODD[1], marks=[needs_bf16, pytest.mark.nightly]),
    ],
    ids=str,
)
def test_parts_of_odd_channels(decision, channels):
    def body(*inputs):
        parts = [nn.max_pool2d(x, (3, 3), padding=(1, 1)) for x in inputs]
        return nn.avg_pool2d(op.concat(parts, axis=1), (2, 2))

    shapes = [(1, count, 9, 7) for count in channels]
    assert not check(body, shapes, decision)["cpu_concat"]


def test_parts_that_do_not_fill_blocks_are_copied():
    """Tensors of 24 channels have no layout of blocks of 16: the concatenation takes another one."""

    def body(x):
        parts = [nn.conv2d(x, weights(24, 32, 1, 1, seed=seed)) for seed in (1, 2)]
        return nn.avg_pool2d(op.concat(parts, axis=1), (2, 2))

    check(body, [SHAPE], Decision(unit="cpu", layout="NCHW16c"))


@pytest.mark.parametrize("decision", F32, ids=str)
def test_a_transform_writes_in_place(decision):
    """A part that lies otherwise is transformed into its place."""

    def body(x):
        other = nn.softmax(nn.max_pool2d(x, (3, 3), padding=(1, 1)), axis=-1)
        parts = [nn.avg_pool2d(x, (3, 3), padding=(1, 1)), other]
        return nn.avg_pool2d(op.concat(parts, axis=1), (2, 2))

    called = check(body, [SHAPE], decision)
    assert called["cpu_concat"] == (1 if decision.layout == "NCHW" else 0)


@pytest.mark.parametrize("decision", [*F32, *DAILY_STORED], ids=str)
def test_a_part_made_of_another_part(decision):
    """It is read out of the whole, and the result goes into the same whole."""

    def body(x):
        first = nn.max_pool2d(x, (3, 3), padding=(1, 1))
        second = op.sigmoid(op.multiply(first, weights(1, 32, 1, 1)))
        return nn.avg_pool2d(op.concat([second, first], axis=1), (2, 2))

    for batch in (1, 2):
        called = check(body, [(batch, *SHAPE[1:])], decision)
        assert not any("concat" in name for name in called)
