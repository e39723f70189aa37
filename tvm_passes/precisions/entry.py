"""One precision: arithmetic and storage of a sub-graph, and all that is known of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ElementStorage:
    """A form in which float32 values lie in memory, in any layout."""

    name: str
    """Suffix of layouts, such as ``bf16`` of ``NHWC.bf16``."""
    dtype: str
    """Type of the elements in memory, such as ``bfloat16``."""
    parts: int = 1
    """Elements whose sum is one value: what rounding to the first left, rounded, and so on.

    If more than one, they are an axis of their own before the last.
    """


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Arithmetic and storage of a sub-graph's activations."""

    name: str
    """Name in decisions, such as ``split-bf16``."""
    documentation: str
    """One sentence for users."""
    storage: ElementStorage | None = None
    """Storage of float32 activations; None if they stay as the model types them."""
    local_error: float
    """Relative L2 error that one sub-graph adds: some one rounding of its result."""
    relative_bytes: float = 1.0
    """Bytes of a tensor relative to f32."""
    speedup: float = 1.0
    """A CPU's arithmetic rate in direct kernels, relative to f32; the prior of cost models."""
    on_matrix_units: bool = False
    """True if matrix units of devices compute in it at their rate for halves."""
    larger_weights: float = 1.0
    """Size of packed weights relative to the model's own."""
    is_own: bool = False
    """True for a model's own arithmetic, which every mode offers."""
    tolerance: float | None = None
    """Relative L2 error of outputs that a mode of the same name allows, which offers f32 and this.

    None if only modes of other names offer it.
    """
    generic: tuple[str, ...] = ()
    """Units whose generic code computes in f32 between values in this precision's storage."""
    feature: int | None = None
    """Place among the precisions that have a column of their own in learned cost models.

    The version of the features fixes it. None for all others: they encode as "other".
    """

    @property
    def storage_name(self) -> str:
        """Name of the storage of activations; empty if they stay as the model types them."""
        return self.storage.name if self.storage else ""
