"""Transforms that the kernel before them does: where it can, and only there; the same values everywhere."""

from __future__ import annotations

from collections import Counter

import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import examples
from tvm import relax

from tests.amx.support import needs_amx
from tests.cpu.support import TARGET, Body, finish, model, random_array, weights
from tests.cpu.test_place import ROUNDING, calls, needs_bf16
from tests.reference import relative_error, run_relax
from tvm_passes.backends import BACKENDS
from tvm_passes.decision import Decision
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.rewrite_layouts import RewriteLayouts, subgraph_id

nn, op = relax.op.nn, relax.op
SHAPE = (1, 32, 9, 7)


def check(body: Body, decisions: list[str], shape: tuple[int, ...] = SHAPE) -> Counter[str]:
    """The kernels that are called where sub-graph i decides as ``decisions[i]``, whose results are right."""
    module = model(body, shape)
    named = {f"s{index}": Decision.parse(text) for index, text in enumerate(decisions)}
    decided = RewriteLayouts(named)(PartitionSubgraphs()(module))
    lowered = BACKENDS["cpu"].lower(TARGET)(decided)
    x = random_array(*shape)
    got = finish(lowered)["main"](tvm.runtime.tensor(x)).numpy()
    precision = max((d.precision for d in named.values()), key=ROUNDING.__getitem__)
    assert relative_error(got, run_relax(module, [x])[0]) < ROUNDING[precision]
    return calls(lowered)


def pool(x):
    return nn.max_pool2d(x, (3, 3), padding=(1, 1))


def mean(x):
    return nn.avg_pool2d(x, (3, 3), padding=(1, 1))


CHAINS = {
    "blocks": (["cpu:NHWC", "cpu:NCHW16c"], "NHWC_to_NCHW16c"),
    "out of blocks": (["cpu:NCHW16c", "cpu:NHWC"], "NCHW16c_to_NHWC"),
    "into pairs": (["cpu:NHWC", "cpu:NCHW32c:split-bf16"], "NHWC_to_NCHW32c_split"),
    "narrowed": (["cpu:NCHW32c", "cpu:NHWC:bf16"], "NCHW32c_to_NHWC_bf16"),
    "widened": (["cpu:NHWC:bf16", "cpu:NHWC"], "NHWC_bf16_to_NHWC"),
}


@needs_bf16
@pytest.mark.parametrize("name", CHAINS)
def test_a_pool_writes_what_its_reader_wants(name):
    decisions, transform = CHAINS[name]
    found = check(lambda x: mean(pool(x)), decisions)
    assert f"cpu_{transform}" not in found
    assert found["cpu_max_pool2d"] == found["cpu_avg_pool2d"] == 1


@needs_amx
def test_tiles_write_what_their_reader_wants():
    def body(x):
        y = nn.conv2d(x, weights(64, 32, 3, 3), padding=1)
        return mean(nn.relu(op.add(y, weights(1, 64, 1, 1))))

    for into in ("cpu:NHWC", "cpu:NCHW32c:split-bf16"):
        found = check(body, ["amx:NHWC:split-bf16", into])
        assert [name for name in found if name.startswith("cpu_NHWC_split")] == []


def test_what_others_read_too_is_left():
    def body(x):
        y = pool(x)
        return op.add(mean(y), pool(y))

    found = check(body, ["cpu:NHWC", "cpu:NCHW16c", "cpu:NHWC"])
    assert found["cpu_NHWC_to_NCHW16c"] == 1


def test_what_changes_the_order_of_rows_and_channels_is_left():
    assert check(lambda x: mean(pool(x)), ["cpu:NHWC", "cpu:NCHW"])["cpu_NHWC_to_NCHW"] == 1


def test_a_part_of_a_concatenation_is_written_in_place_and_in_its_layout():
    def body(x):
        left, right = pool(x), mean(x)
        return pool(op.concat([left, right], axis=1))

    found = check(body, ["cpu:NHWC", "cpu:NHWC", "cpu:NCHW16c", "cpu:NCHW16c"])
    assert "cpu_concat" not in found
    assert "cpu_NHWC_to_NCHW16c" not in found


def test_a_whole_that_others_write_into_keeps_its_layout():
    def body(x):
        return pool(op.concat([pool(x), mean(x)], axis=1))

    found = check(body, ["cpu:NHWC", "cpu:NHWC", "cpu:NHWC", "cpu:NCHW16c"])
    assert "cpu_concat" not in found
    assert found["cpu_NHWC_to_NCHW16c"] == 1


def test_a_whole_that_is_copied_is_written_in_the_other_layout():
    found = check(
        lambda x: pool(op.concat([x, x], axis=1)), ["cpu:NHWC", "cpu:NCHW16c"], (1, 32, 9, 7)
    )
    assert "cpu_NHWC_to_NCHW16c" not in found


@needs_amx
@pytest.mark.parametrize("into", ["cpu:NCHW16c", "cpu:NCHW32c:bf16", "cpu:NHWC"])
@pytest.mark.parametrize("out", [32, 48, 64])
def test_tiles_write_blocks_of_any_size(into, out):
    def body(x):
        return pool(nn.relu(nn.conv2d(x, weights(out, 32, 1, 1))))

    if out % 32 and "32c" in into:
        pytest.skip(f"{out} channels fill no blocks of 32")
    found = check(body, ["amx:NHWC:bf16", into])
    assert [name for name in found if "_to_NCHW" in name and "NHWC_bf16" in name] == []


TEXTS = (
    *("cpu:NCHW", "cpu:NHWC", "cpu:NCHW16c", "cpu:NCHW32c", "cpu:NHWC:bf16", "cpu:NCHW32c:bf16"),
    *("cpu:NHWC:split-bf16", "cpu:NCHW32c:split-bf16", "amx:NHWC:bf16", "amx:NCHW32c:bf16"),
    "amx:NHWC:split-bf16",
)


@st.composite
def chains(draw):
    """Pools, activations, convolutions and concatenations of what was made before: (kind, operand, other)."""
    count = draw(st.integers(2, 7))
    kinds = st.sampled_from(["max", "average", "scale", "convolution", "concat"])
    return [(draw(kinds), draw(st.integers(0, i)), draw(st.integers(0, i))) for i in range(count)]


def _emit(chain, x):
    made = [(x, 32)]
    for index, (kind, first, second) in enumerate(chain):
        y, channels = made[max(first, index - 2)]
        if kind == "concat":
            other, more = made[second]
            made.append((op.concat([y, other], axis=1), channels + more))
        elif kind == "convolution":
            made.append((nn.relu(nn.conv2d(y, weights(64, channels, 1, 1, seed=index))), 64))
        elif kind == "scale":
            made.append((nn.relu(op.add(y, weights(1, channels, 1, 1, seed=index))), channels))
        else:
            made.append((pool(y) if kind == "max" else mean(y), channels))
    return pool(made[-1][0])


@needs_bf16
@settings(max_examples=examples(25), deadline=None)
@given(chains(), st.randoms(use_true_random=False))
def test_any_decisions_give_the_same_values(chain, random):
    module = model(lambda x: _emit(chain, x), SHAPE)
    decided = {}
    for function in PartitionSubgraphs()(module).functions.values():
        if id_ := subgraph_id(function):
            wanted = [Decision.parse(text) for text in TEXTS]
            able = [d for d in wanted if BACKENDS[d.unit].supports(function, d) is None]
            decided[id_] = str(random.choice(able))
    check(lambda x: _emit(chain, x), [decided[f"s{index}"] for index in range(len(decided))])
