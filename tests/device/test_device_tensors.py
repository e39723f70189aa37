"""Tensors made without numpy are what numpy sees in them, and errors are those that numpy computes."""

import math
import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from layoutsel.device.compare import rel_l2_err
from layoutsel.device.tensors import bytes_of, copied, elements_of, ends, random_tensor, tensor_of
from layoutsel.runtime import samples
from tvm_passes.devices import HOST_DEVICE
from tvm_passes.runtime_library import load_tvm_runtime

FLOATS = ("float32", "float64", "float16", "bfloat16")
INTEGERS = ("int8", "uint8", "int32", "int64", "bool")


@pytest.fixture(autouse=True)
def runtime():
    load_tvm_runtime()


def as_array(tensor):
    dtype = str(tensor.dtype)
    known = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    return np.frombuffer(bytes_of(tensor), known).reshape(tuple(tensor.shape))


@pytest.mark.parametrize("dtype", FLOATS)
def test_random_floats_are_normal(dtype):
    values = as_array(random_tensor((7, 31, 101), dtype, 0)).astype(np.float64)
    assert values.shape == (7, 31, 101)
    assert abs(values.mean()) < 0.01
    assert values.std() == pytest.approx(0.1, rel=0.05)
    assert np.isfinite(values).all()
    assert len(np.unique(values[:, 0, 0])) > 1


@pytest.mark.parametrize("dtype", INTEGERS)
def test_random_integers_are_legal_indices(dtype):
    assert set(np.unique(as_array(random_tensor((300,), dtype, 1))).astype(int)) == {0, 1}


def test_bits_of_bfloat16_are_no_denormals():
    for dtype in ("uint16", "uint32"):
        bits = as_array(random_tensor((5000,), dtype, 2)).view(ml_dtypes.bfloat16)
        assert bits.astype(np.float64).std() == pytest.approx(0.1, rel=0.05)


def test_seeds_differ_and_repeat():
    first, again, other = (bytes_of(random_tensor((64,), "float32", seed)) for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 0, 3), (5, 7)])
def test_values_survive(shape):
    values = np.random.default_rng(0).standard_normal(shape).astype("float32")
    tensor = tensor_of(values.tobytes(), shape, "float32")
    assert np.array_equal(as_array(tensor), values)
    assert np.array_equal(as_array(copied(tensor, HOST_DEVICE)), values)


numbers = arrays.arrays(
    np.float32, st.integers(0, 20), elements=st.floats(width=32, allow_subnormal=False)
)


@given(numbers, st.data())
def test_the_error_is_that_of_numpy(expected, data):
    other = st.floats(width=32, allow_subnormal=False)
    got = expected.copy()
    for index in range(len(got)):
        if data.draw(st.booleans()):
            got[index] = data.draw(other)
    with np.errstate(all="ignore"):
        wanted = samples.rel_l2_err(got, expected)
    found = rel_l2_err(got.tobytes(), "float32", expected.tobytes(), "float32")
    assert found == pytest.approx(wanted, rel=1e-9) or math.isinf(found) == math.isinf(wanted) == 1


@pytest.mark.parametrize("dtype", [*FLOATS, "int8", "uint8", "int32", "int64", "bool"])
def test_every_type_is_compared(dtype):
    known = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    values = np.array([0, 1, 1, 0, 1]).astype(known)
    other = np.array([0, 1, 1, 0, 0]).astype(known)
    assert rel_l2_err(values.tobytes(), dtype, values.tobytes(), dtype) == 0
    assert rel_l2_err(other.tobytes(), dtype, values.tobytes(), dtype) == pytest.approx(3**-0.5)
    assert rel_l2_err(values[:-1].tobytes(), dtype, values.tobytes(), dtype) == math.inf


@pytest.mark.parametrize("with_numpy", [True, False])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "float32", "float64"])
def test_ends_of_elements(dtype, with_numpy, monkeypatch):
    if not with_numpy:
        monkeypatch.delitem(sys.modules, "numpy")
    values = np.array([[3, 0, 7], [5, 100, 1]], dtype)
    tensor = tensor_of(values.tobytes(), values.shape, dtype)
    elements = elements_of(tensor)
    assert ends(elements) == (0, 100)
    assert ends(elements[1::2]) == (0, 5)
    if dtype.startswith("float"):
        values[1, 1] = math.nan
        tensor = tensor_of(values.tobytes(), values.shape, dtype)
        elements = elements_of(tensor)
        assert all(map(math.isnan, ends(elements)))
