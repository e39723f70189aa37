"""An operator of ONNX that imports to an entry of the table. Importing this does not import ONNX."""

from __future__ import annotations

from dataclasses import dataclass

MICROSOFT = "com.microsoft"
"""Domain of the operators that ONNX Runtime adds."""


@dataclass(frozen=True, kw_only=True)
class OnnxOperator:
    """An operator of ONNX, and its import."""

    name: str
    """Name in its domain, such as ``Conv``."""
    domain: str = ""
    """Domain; empty for ONNX's own."""
    is_imported: bool = True
    """True if nodes are converted to Relax. False for an operator that is only checked, and folded
    where all its inputs are constants."""


def onnx(*names: str) -> tuple[OnnxOperator, ...]:
    """Operators of ONNX's own domain that TVM's importer converts."""
    return tuple(OnnxOperator(name=name) for name in names)
