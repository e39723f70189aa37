"""Tensors of TVM's runtime without numpy, from bytes or random values."""

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
"""Number of random values that are drawn and then repeated; prime, so that rows of a tensor
differ."""
_SCALE = 0.1
"""Standard deviation of random values; small, so that long products stay finite."""


def runtime_device(device: DeviceId) -> tvm_ffi.Device:
    """Device of this node, for TVM's runtime."""
    return tvm_ffi.device(device.kind, device.index)


def empty_tensor(
    shape: Sequence[int], dtype: str, device: DeviceId = HOST_DEVICE
) -> tvm_ffi.Tensor:
    """Allocate a tensor on a device, with undefined values."""
    allocate = tvm_ffi.get_global_func("runtime.TVMTensorAllocWithScope")
    return allocate(tvm_ffi.Shape(tuple(shape)), tvm_ffi.dtype(dtype), runtime_device(device), None)


def tensor_of(
    data: bytes, shape: Sequence[int], dtype: str, device: DeviceId = HOST_DEVICE
) -> tvm_ffi.Tensor:
    """Make a tensor on a device from its values `data`, row by row."""
    tensor = empty_tensor(shape, dtype, device)
    if data:
        copy = tvm_ffi.get_global_func("runtime.TVMTensorCopyFromBytes")
        copy(tensor, ctypes.c_void_p(_address(data)), len(data))
    return tensor


class _DLTensor(ctypes.Structure):
    """DLPack's description of a tensor with its owner."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("rank", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("offset", ctypes.c_uint64),
        ("owner", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


_CPU = 1
"""DLPack's number of the CPU."""
_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_c_library = ctypes.CDLL(None)
_c_library.malloc.restype = ctypes.c_void_p
_c_library.malloc.argtypes = [ctypes.c_size_t]


class _Mapping:
    """DLPack export of a tensor at an address; each export must be taken once."""

    def __init__(self, address: int, shape: Sequence[int], dtype: str) -> None:
        self._address, self._shape, self._dtype = address, tuple(shape), tvm_ffi.dtype(dtype)

    def __dlpack__(self, **_options: object) -> object:
        # The C library frees the description, as Python may have ended before the last tensor.
        size, rank = ctypes.sizeof(_DLTensor), len(self._shape)
        place = _c_library.malloc(size + 16 * rank)
        strides = [math.prod(self._shape[axis + 1 :]) for axis in range(rank)]
        (ctypes.c_int64 * (2 * rank)).from_address(place + size)[:] = [*self._shape, *strides]
        free = ctypes.cast(_c_library.free, ctypes.c_void_p).value
        described = _DLTensor(
            self._address,
            (_CPU, 0),
            rank,
            self._dtype.type_code,
            self._dtype.bits,
            self._dtype.lanes,
            place + size,
            place + size + 8 * rank,
            0,
            None,
            free,
        )
        ctypes.memmove(place, ctypes.addressof(described), size)
        return _new_capsule(place, b"dltensor", None)

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CPU, 0


def tensor_at(address: int, shape: Sequence[int], dtype: str) -> tvm_ffi.Tensor:
    """Make a tensor on memory of the host, which must outlive it; nothing is read."""
    return tvm_ffi.from_dlpack(_Mapping(address, shape, dtype))


def bytes_of(tensor: tvm_ffi.Tensor) -> bytes:
    """Values of `tensor`, row by row."""
    buffer = ctypes.create_string_buffer(nbytes_of(tensor.shape, str(tensor.dtype)))
    if len(buffer):
        copy = tvm_ffi.get_global_func("runtime.TVMTensorCopyToBytes")
        copy(tensor, ctypes.c_void_p(ctypes.addressof(buffer)), len(buffer))
    return buffer.raw


def random_tensor(
    shape: Sequence[int], dtype: str, seed: int, device: DeviceId = HOST_DEVICE
) -> tvm_ffi.Tensor:
    """Tensor of seeded random values: normal for floats, 0 or 1 for integers (legal indices).

    Kernels declare bfloat16 and pairs of bfloat16 as ``uint16`` and ``uint32``; both are filled
    with the bits of normal values.
    """
    block, nbytes = _block(dtype, seed), nbytes_of(shape, dtype)
    return tensor_of((block * (nbytes // len(block) + 1))[:nbytes], shape, dtype, device)


def copied(tensor: tvm_ffi.Tensor, device: DeviceId) -> tvm_ffi.Tensor:
    """Copy `tensor` to a device."""
    there = empty_tensor(tensor.shape, str(tensor.dtype), device)
    tvm_ffi.get_global_func("runtime.TVMTensorCopyFromTo")(tensor, there)
    return there


_FORMATS = {
    "int8": "b", "int16": "h", "int32": "i", "int64": "q",
    "uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q",
    "float32": "f", "float64": "d",
}  # fmt: skip
"""Format characters of :mod:`struct` by element type."""


def elements_of(tensor: tvm_ffi.Tensor) -> memoryview:
    """Elements of a contiguous tensor in host memory, row by row; valid while the tensor lives."""
    dtype = str(tensor.dtype)
    data = (ctypes.c_byte * nbytes_of(tensor.shape, dtype)).from_address(tensor.data_ptr())
    return memoryview(data).cast("B").cast(_FORMATS[dtype])  # type: ignore[call-overload]


def ends(values: memoryview) -> tuple[float, float]:
    """Minimum and maximum of some numbers; NaN if any of them is NaN.

    Uses numpy if the caller has imported it, which is about a hundred times as fast.
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
    """Size of a tensor, bytes."""
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
    """Values as bfloat16: the upper two bytes of each float, without rounding."""
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
"""Packing of floating-point values by type; every platform of TVM's runtime is little-endian."""
