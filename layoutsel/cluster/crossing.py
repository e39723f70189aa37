"""Tensors on their way between nodes: header, check on receipt, conversion of the layout.

A tensor is sent in the layout of the sender's plan, as bytes with a header. The receiver checks the
header against the tensor that its own plan expects, and converts the layout if the plans disagree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from layoutsel.device.signature import Signature
from layoutsel.runtime.arrays import bits_of, dtype_of
from tvm_passes.errors import LayoutselError
from tvm_passes.layout import (
    PLAIN,
    convert,
    has_form,
    logical_shape,
    order_of,
    physical_dtype,
    storage_of,
)
from tvm_passes.layouts import LAYOUTS

_STORED = "float32"
"""Element type in the model of tensors that a layout stores in another type."""


class CrossingError(LayoutselError):
    """A tensor from another node that is not the expected one."""


@dataclass(frozen=True, kw_only=True)
class TensorHeader:
    """Form of a tensor in the sender's memory."""

    dtype: str
    """Element type in memory, such as ``float32`` or ``bfloat16``."""
    shape: tuple[int, ...]
    """Shape in memory."""
    layout: str = PLAIN
    """Layout, such as ``NHWC.bf16``."""

    @classmethod
    def of(cls, signature: Signature) -> TensorHeader:
        """Make the header of an input or output of a stage."""
        return cls(dtype=signature.dtype, shape=signature.shape, layout=signature.layout or PLAIN)

    def __str__(self) -> str:
        return f"{self.dtype} of shape {self.shape} in {self.layout}"

    @property
    def nbytes(self) -> int:
        """Size of the tensor, bytes."""
        return math.prod(self.shape) * dtype_of(self.dtype).itemsize

    @property
    def logical_shape(self) -> tuple[int, ...]:
        """Shape of the tensor in the model."""
        return logical_shape(self.shape, self.layout)

    @property
    def logical_dtype(self) -> str:
        """Element type of the tensor in the model."""
        return _STORED if storage_of(self.layout) else self.dtype


def sent(array: np.ndarray) -> memoryview:
    """Bytes of a tensor, row by row; without a copy of a contiguous array."""
    return np.ascontiguousarray(bits_of(array)).data.cast("B")


def received(
    data: np.ndarray | bytes | memoryview,
    header: TensorHeader,
    wanted: Signature,
    *,
    segment: str,
) -> np.ndarray:
    """Check a tensor from another node and convert it to the layout of this node's plan.

    Parameters
    ----------
    data
        The tensor as the sender's array, or as its bytes.
    header
        Header that the sender states.
    wanted
        Input of the segment.
    segment
        Name of the segment, for messages.

    Returns
    -------
    numpy.ndarray
        An array in the layout of `wanted`, on the memory of `data` if the layouts are equal.

    Raises
    ------
    CrossingError
        If header and data disagree, or another tensor is expected; names segment and tensor.
    """
    where = f"segment {segment!r}: tensor {wanted.name}"
    here = TensorHeader.of(wanted)
    _check_form(header, where)
    stated = header.logical_dtype, header.logical_shape
    expected = here.logical_dtype, here.logical_shape
    if stated != expected:
        raise CrossingError(
            f"{where}: got {header}; expected {here}. The nodes run different models, or the "
            "same one with inputs of different shapes: deploy one model to all of them"
        )
    array = _array(data, header, where)
    return array if header == here else convert(array, header.layout, here.layout)


def _check_form(header: TensorHeader, where: str) -> None:
    known = order_of(header.layout) in LAYOUTS
    try:
        fits = known and has_form(header.shape, header.layout)
    except LayoutselError:  # an unknown storage
        known = fits = False
    if not known:
        raise CrossingError(
            f"{where}: got the layout {header.layout!r}; expected one of {', '.join(LAYOUTS)}. "
            "Install the same versions and packages on all nodes"
        )
    if not fits or physical_dtype(header.logical_dtype, header.layout) != header.dtype:
        raise CrossingError(
            f"{where}: got {header}; expected a shape and an element type of that layout"
        )


def _array(data: np.ndarray | bytes | memoryview, header: TensorHeader, where: str) -> np.ndarray:
    if isinstance(data, np.ndarray):
        if (str(data.dtype), data.shape) != (header.dtype, header.shape):
            raise CrossingError(
                f"{where}: got {data.dtype} of shape {data.shape}; expected {header}, as its "
                "header states"
            )
        return data
    size = memoryview(data).nbytes
    if size != header.nbytes:
        raise CrossingError(
            f"{where}: got {size:,} bytes; expected {header.nbytes:,}, as its header states "
            f"({header})"
        )
    return np.frombuffer(data, dtype_of(header.dtype)).reshape(header.shape)
