"""What runs on a device that has TVM's runtime alone: needs Python's standard library and ``tvm_ffi``, nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layoutsel.device.model import Model, load

__all__ = ["Model", "load"]


def __getattr__(name: str) -> Any:
    """Import on first use: the command's help needs no ``tvm_ffi``."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from layoutsel.device import model

    return getattr(model, name)
