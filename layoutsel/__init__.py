"""Compute unit, data layout and precision for every part of a neural network, chosen together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from layoutsel.device.openmp import preload_openmp
from layoutsel.device.pytorch import import_tvm_without_pytorch

preload_openmp()
import_tvm_without_pytorch()

__version__ = "0.1.0"
__all__ = [
    "CompiledModel",
    "Decision",
    "ImportLimits",
    "LayoutselError",
    "Plan",
    "compile_plan",
    "load",
    "optimize",
    "plan",
]

if TYPE_CHECKING:
    from layoutsel.api import compile_plan, optimize, plan
    from layoutsel.planning.plan import Plan
    from layoutsel.runtime.compiled import CompiledModel
    from layoutsel.runtime.loading import load
    from tvm_passes.decision import Decision
    from tvm_passes.errors import LayoutselError
    from tvm_passes.limits import ImportLimits

_MODULES = {
    "CompiledModel": "layoutsel.runtime.compiled",
    "Decision": "tvm_passes.decision",
    "ImportLimits": "tvm_passes.limits",
    "LayoutselError": "tvm_passes.errors",
    "Plan": "layoutsel.planning.plan",
    "compile_plan": "layoutsel.api",
    "load": "layoutsel.runtime.loading",
    "optimize": "layoutsel.api",
    "plan": "layoutsel.api",
}
"""Module of each public name, imported on first use."""


def __getattr__(name: str) -> Any:
    """Import a public name on first use, as planner and command-line help work without TVM."""
    if name not in _MODULES:
        raise AttributeError(f"module 'layoutsel' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)
