"""Tensors of TVM's runtime, made without numpy: of given bytes, or of random values."""

from __future__ import annotations

import ctypes
import math
import random
import struct
import sys
from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import tvm_ffi

from tvm_passes.devices import HOST_DEVICE, DeviceId

_PERIOD = 4099
"""Random values are drawn this often, and repeated; a prime number, so that rows of a tensor differ."""
_SCALE = 0.1
"""Standard deviation: small, so that products of many stay finite in narrow types."""


def runtime_device(device: DeviceId) -> tvm_ffi.Device:
    """A device of this node as TVM's runtime has it."""
    return tvm_ffi.device(device.kind, device.index)


def empty_tensor(
    shape: Sequence[int], dtype: str, device: DeviceId = HOST_DEVICE
) -> tvm_ffi.Tensor:
    """A tensor on a device, its values undefined."""
    allocate = tvm_ffi.get_global_func("runtime.TVMTensorAllocWithScope")
    return allocate(tvm_ffi.Shape(tuple(shape)), tvm_ffi.dtype(dtype), runtime_device(device), None)


def tensor_of(
    data: bytes, shape: Sequence[int], dtype: str, device: DeviceId = HOST_DEVICE
) -> tvm_ffi.Tensor:
    """A tensor on a device with the values that `data` has, row by row."""
    tensor = empty_tensor(shape, dtype, device)
    if data:
        copy = tvm_ffi.get_global_func("runtime.TVMTensorCopyFromBytes")
        copy(tensor, ctypes.c_void_p(_address(data)), len(data))
    return tensor


def bytes_of(tensor: tvm_ffi.Tensor) -> bytes:
    """The values of `tensor`, row by row."""
    buffer = ctypes.create_string_buffer(nbytes_of(tensor.shape, str(tensor.dtype)))
    if len(buffer):
        copy = tvm_ffi.get_global_func("runtime.TVMTensorCopyToBytes")
        copy(tensor, ctypes.c_void_p(ctypes.addressof(buffer)), len(buffer))
    return buffer.raw


def random_tensor(
    shape: Sequence[int], dtype: str, seed: int, device: DeviceId = HOST_DEVICE
) -> tvm_ffi.Tensor:
    """Seeded random values: normal for floats, 0 or 1 for integers, which are legal indices.

    ``uint16`` and ``uint32`` are taken for the bits of bfloat16 and of pairs of them, as kernels declare them.
    """
    block, nbytes = _block(dtype, seed), nbytes_of(shape, dtype)
    return tensor_of((block * (nbytes // len(block) + 1))[:nbytes], shape, dtype, device)


def copied(tensor: tvm_ffi.Tensor, device: DeviceId) -> tvm_ffi.Tensor:
    """A copy of `tensor` on a device."""
    there = empty_tensor(tensor.shape, str(tensor.dtype), device)
    tvm_ffi.get_global_func("runtime.TVMTensorCopyFromTo")(tensor, there)
    return there


_FORMATS = {
    "int8": "b", "int16": "h", "int32": "i", "int64": "q",
    "uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q",
    "float32": "f", "float64": "d",
}  # fmt: skip
"""Element types of numbers as :mod:`struct` spells them."""


def elements_of(tensor: tvm_ffi.Tensor) -> memoryview:
    """The elements of a contiguous tensor in the host's memory, row by row; they are read in place, while it is alive."""
    dtype = str(tensor.dtype)
    data = (ctypes.c_byte * nbytes_of(tensor.shape, dtype)).from_address(tensor.data_ptr())
    return memoryview(data).cast("B").cast(_FORMATS[dtype])  # type: ignore[call-overload]


def ends(values: memoryview) -> tuple[float, float]:
    """The least and the largest of some numbers; no number where there is one.

    By numpy where the caller has imported it, which is some hundred times as fast.
    """
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        array = numpy.asarray(values)
        return array.min(), array.max()
    if values.format in "fd" and any(map(math.isnan, values)):
        return math.nan, math.nan
    return min(values), max(values)


def _address(data: bytes) -> int | None:
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value


def nbytes_of(shape: Sequence[int], dtype: str) -> int:
    """Bytes of a tensor."""
    count = tvm_ffi.dtype(dtype).itemsize
    for extent in shape:
        count *= int(extent)
    return count


@cache
def _block(dtype: str, seed: int) -> bytes:
    generator = random.Random(seed)
    pack = _FLOATS.get(dtype)
    if pack is not None:
        return pack([generator.gauss(0, _SCALE) for _ in range(_PERIOD)])
    size = tvm_ffi.dtype(dtype).itemsize
    return b"".join(generator.randrange(2).to_bytes(size, "little") for _ in range(_PERIOD))


def _upper_halves(values: Sequence[float]) -> bytes:
    """Of bfloat16: the upper two bytes of each float, whose last bits do not matter here."""
    data = array("f", values).tobytes()
    return b"".join(data[start + 2 : start + 4] for start in range(0, len(data), 4))


_FLOATS: Mapping[str, Callable[[Sequence[float]], bytes]] = {
    "float64": lambda values: array("d", values).tobytes(),
    "float32": lambda values: array("f", values).tobytes(),
    "float16": lambda values: struct.pack(f"<{len(values)}e", *values),
    "bfloat16": _upper_halves,
    "uint16": _upper_halves,
    "uint32": _upper_halves,
}
"""Packs values of a floating-point type; all machines that TVM's runtime knows are little-endian."""
