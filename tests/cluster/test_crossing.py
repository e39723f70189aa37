"""Tensors from other nodes: converted between any two layouts, and checked against their header."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layoutsel.cluster.crossing import CrossingError, TensorHeader, received, sent
from layoutsel.device.signature import Signature
from layoutsel.runtime.arrays import dtype_of
from tvm_passes.layout import convert, physical_dtype, physical_shape, stored
from tvm_passes.layouts import LAYOUTS

SHAPE = (1, 32, 3, 2)
FORMS = [
    *LAYOUTS,
    *(stored(order, storage) for order in ("NHWC", "NCHW32c") for storage in ("bf16", "split")),
]
EXACT = [form for form in FORMS if "." not in form]


def signature(layout: str, shape=SHAPE, dtype="float32") -> Signature:
    return Signature(
        name="s3.0",
        shape=physical_shape(shape, layout),
        dtype=physical_dtype(dtype, layout),
        layout=layout,
    )


def tensor(layout: str, shape=SHAPE) -> np.ndarray:
    plain = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return convert(plain, "NCHW", layout)


@pytest.mark.parametrize("source", FORMS)
@pytest.mark.parametrize("destination", FORMS)
def test_any_layout_to_any_other_as_bytes(source, destination):
    array = tensor(source)
    header = TensorHeader.of(signature(source))
    assert header.nbytes == array.nbytes
    got = received(bytes(sent(array)), header, signature(destination), segment="g0")
    want = tensor(destination)
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    tolerance = 0 if source in EXACT and destination in EXACT else 1e-2
    np.testing.assert_allclose(
        convert(got, destination, "NCHW"), tensor("NCHW"), rtol=tolerance, atol=tolerance
    )


def test_an_equal_layout_is_not_copied():
    array = tensor("NHWC")
    got = received(array, TensorHeader.of(signature("NHWC")), signature("NHWC"), segment="g0")
    assert got is array
    assert np.shares_memory(np.frombuffer(sent(array), np.uint8), array)


@given(st.lists(st.integers(1, 4), max_size=6).map(tuple), st.sampled_from(["int64", "uint8"]))
def test_tensors_of_any_rank_stay_plain(shape, dtype):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    plain = Signature(name="s0.1", shape=shape, dtype=dtype)
    got = received(bytes(sent(array)), TensorHeader.of(plain), plain, segment="g0")
    np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"layout": "NCWH"}, None, "got the layout 'NCWH'; expected one of"),
        ({"layout": "NHWC.fp4"}, None, "got the layout 'NHWC.fp4'"),
        ({"layout": "NCHW16c"}, None, "expected a shape and an element type of that layout"),
        ({"layout": "NHWC.bf16"}, None, "expected a shape and an element type of that layout"),
        ({"shape": (1, 3, 2, 64)}, None, "expected float32 of shape .*The nodes run different"),
        ({"dtype": "int32"}, None, "got int32 of shape .*The nodes run different"),
        ({"dtype": "nonsense"}, None, "got nonsense of shape .*The nodes run different"),
        ({}, b"\0" * 767, "got 767 bytes; expected 768"),
        ({}, np.zeros(SHAPE, np.float32), "as its header states"),
        ({}, np.zeros((1, 3, 2, 32)), "got float64 .*as its header states"),
    ],
)
def test_another_tensor_is_refused(header, data, message):
    right = signature("NHWC")
    stated = {"dtype": right.dtype, "shape": right.shape, "layout": right.layout, **header}
    with pytest.raises(CrossingError, match=f"segment 'g7': tensor s3.0: .*{message}"):
        received(
            sent(tensor("NHWC")) if data is None else data,
            TensorHeader(**stated),
            right,
            segment="g7",
        )


def test_bfloat16_crosses_as_bytes():
    array = tensor("NHWC.bf16")
    got = received(
        bytes(sent(array)),
        TensorHeader.of(signature("NHWC.bf16")),
        signature("NHWC.bf16"),
        segment="g",
    )
    assert got.dtype == dtype_of("bfloat16")
    np.testing.assert_array_equal(got.view(np.uint16), array.view(np.uint16))
