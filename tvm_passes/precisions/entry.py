"""One precision: arithmetic and storage of a sub-graph, and their properties."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ElementStorage:
    """Representation of float32 values in memory, independent of their order."""

    name: str
    """Suffix in the names of layouts, such as ``bf16`` in ``NHWC.bf16``."""
    dtype: str
    """Type of the elements in memory, such as ``bfloat16``."""
    parts: int = 1
    """Number of elements whose sum is one value: the rounded value, the rounded remainder, ….

    Several parts form an additional axis before the last one.
    """


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Arithmetic and storage of a sub-graph's activations."""

    name: str
    """Name in decisions, such as ``split-bf16``."""
    documentation: str
    """One sentence for users."""
    storage: ElementStorage | None = None
    """Storage of float32 activations; None if they keep the type that the model states."""
    local_error: float
    """Relative L2 error that one sub-graph adds: about that of rounding its result once."""
    relative_bytes: float = 1.0
    """Size of a tensor relative to f32."""
    speedup: float = 1.0
    """Arithmetic rate of a CPU's direct kernels relative to f32; the prior of cost models."""
    on_matrix_units: bool = False
    """True if matrix units of devices compute in it, at their rate for 16-bit floats."""
    larger_weights: float = 1.0
    """Size of packed weights relative to the model's weights."""
    is_own: bool = False
    """True for arithmetic that models themselves ask for, f32 or int8; every mode offers it."""
    tolerance: float | None = None
    """Largest relative L2 error of outputs in a precision mode named after it.

    The mode offers f32 and this precision. If None, there is no such mode, and the precision is
    used only if another mode offers it.
    """
    generic: tuple[str, ...] = ()
    """Units whose generic code computes in f32 and stores activations as `storage` says."""
    feature: int | None = None
    """Position of its column among those of precisions in learned cost models.

    Fixed as long as the version of the features is. None for a precision without a column, which
    encodes as "other".
    """

    @property
    def storage_name(self) -> str:
        """Name of the storage of activations; empty if they keep the type that the model states."""
        return self.storage.name if self.storage else ""
