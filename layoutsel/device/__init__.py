"""Loading, running and measuring models on a device with TVM's runtime alone.

Needs Python's standard library and ``tvm_ffi``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layoutsel.device.model import Model, load

__all__ = ["Model", "load"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, as the command's help needs no ``tvm_ffi``."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from layoutsel.device import model

    return getattr(model, name)
