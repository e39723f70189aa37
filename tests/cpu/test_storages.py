"""How values lie in memory: layouts, bits of bfloat16, and transforms between them."""

import numpy as np
import pytest
import tvm
from tiers import tiered

from tests.cpu.support import TARGET
from tvm_passes.cpu import emit
from tvm_passes.cpu.emit import bind
from tvm_passes.cpu.host import has_bf16, vector_unit
from tvm_passes.cpu.matvec import FORMATS
from tvm_passes.cpu.reorder import reorder
from tvm_passes.layout import convert, physical_shape
from tvm_passes.layouts import LAYOUTS


def test_weights_of_24_bits_are_the_nearest():
    values = np.array([1, -1, 1 + 2**-15, 1 + 2**-16, 1 + 2**-17, 3e38, -3e-39, np.inf, 0.1, 0])
    values = np.resize(values.astype("float32"), (1, 1, 4 * 16))
    packed = FORMATS["split"].pack(values).reshape(3, 16)
    upper = np.stack(
        [packed[0] << 16, packed[0] & 0xFFFF0000, packed[1] << 16, packed[1] & 0xFFFF0000]
    )
    third = np.stack([(packed[2] >> 8 * index & 0xFF) << 8 for index in range(4)])
    held = (upper | third).astype("uint32").reshape(-1).view("float32")
    values = values.reshape(-1)
    finite = np.isfinite(values)
    np.testing.assert_array_equal(held[~finite], values[~finite])
    held, values = held[finite].astype("float64"), values[finite]
    assert np.all(np.abs(held - values) <= np.spacing(np.abs(values)).astype("float64") * 2**7)


@pytest.mark.parametrize(
    "shape",
    tiered(
        [(1, 32, 7, 7), (2, 96, 3, 3), (1, 64, 20, 31), (1, 96, 1, 1)],
        [(2, 96, 3, 3), (1, 64, 20, 31)],
    ),
)
@pytest.mark.parametrize("source", LAYOUTS)
@pytest.mark.parametrize("result", LAYOUTS)
def test_reorder(shape, source, result):
    function = reorder(shape, source, result, vector_unit(TARGET))
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    array = (
        np.random.default_rng(0).standard_normal(physical_shape(shape, source)).astype("float32")
    )
    out = tvm.runtime.tensor(np.zeros(physical_shape(shape, result), "float32"))
    tvm.compile(module, target=TARGET)["main"](tvm.runtime.tensor(array), out)
    np.testing.assert_array_equal(out.numpy(), convert(array, source, result))


def test_bits_of_bfloat16_in_order():
    """Of all patterns but those of no number: as integers they compare as the numbers do, and they come back."""
    patterns = np.arange(2**16).astype("uint16")
    patterns = patterns[(patterns & 0x7FFF) <= 0x7F80]
    patterns = patterns[: len(patterns) // 32 * 32]

    def body(buffers):
        with emit.serial(len(patterns) // 32) as index:
            value = bind(emit.ordered(emit.load(buffers[0], index * 32, 32), 32))
            emit.store(buffers[1], value, index * 32, 32)
            emit.store(buffers[2], emit.bits_of(value, 32), index * 32, 32)

    size = patterns.shape
    function = emit.prim_func([(size, "uint16"), (size, "int16"), (size, "uint16")], body)
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    keys, back = (tvm.runtime.tensor(np.zeros(size, dtype)) for dtype in ("int16", "uint16"))
    tvm.compile(module, target=TARGET)["main"](tvm.runtime.tensor(patterns), keys, back)
    np.testing.assert_array_equal(back.numpy(), patterns)
    values = (patterns.astype("uint32") << 16).view("float32")
    in_order = values[np.argsort(keys.numpy(), kind="stable")]
    assert (in_order[1:] >= in_order[:-1]).all()


@pytest.mark.skipif(not has_bf16(TARGET), reason="the CPU has no AVX512_BF16")
@pytest.mark.parametrize("source", ["NCHW", "NHWC", "NCHW.bf16", "NCHW32c.bf16", "NHWC.split"])
@pytest.mark.parametrize("result", ["NCHW16c", "NHWC.bf16", "NCHW.split", "NCHW32c.split"])
@pytest.mark.parametrize("shape", tiered([(2, 64, 5, 9), (1, 32, 20, 16)], [(2, 64, 5, 9)]))
def test_reorder_changes_the_storage(shape, source, result):
    function = reorder(shape, source, result, vector_unit(TARGET))
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    array = convert(
        np.random.default_rng(0).standard_normal(shape).astype("float32"), "NCHW", source
    )
    expected = convert(array, source, result)
    out = tvm.runtime.tensor(np.zeros_like(expected))
    tvm.compile(module, target=TARGET)["main"](tvm.runtime.tensor(array), out)
    got, wanted = (convert(a, result, "NCHW") for a in (out.numpy(), expected))
    np.testing.assert_allclose(got, wanted, rtol=2**-16)
