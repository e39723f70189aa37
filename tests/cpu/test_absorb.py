"""Transforms that the kernel before them does: where it can, and only there; the same values everywhere."""

from __future__ import annotations

from collections import Counter

import pytest
import tvm
from tvm import relax

from tests.amx.support import needs_amx
from tests.cpu.support import TARGET, Body, finish, model, random_array, weights
from tests.cpu.test_place import ROUNDING, calls, needs_bf16
from tests.reference import relative_error, run_relax
from tvm_passes.backends import BACKENDS
from tvm_passes.decision import Decision
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.rewrite_layouts import RewriteLayouts

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
