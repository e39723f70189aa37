"""Multi-exit networks: branches in parallel with the trunk, an answer as soon as one is sure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["ExitModel", "ExitPlan", "Policy", "build", "load", "plan_exits", "profiled", "read"]

if TYPE_CHECKING:
    from layoutsel.exits.building import build, load, profiled
    from layoutsel.exits.executor import ExitModel
    from layoutsel.exits.exit_plan import ExitPlan
    from layoutsel.exits.network import read
    from layoutsel.exits.planner import plan_exits
    from layoutsel.exits.policy import Policy

_MODULES = {
    "ExitModel": "layoutsel.exits.executor",
    "ExitPlan": "layoutsel.exits.exit_plan",
    "Policy": "layoutsel.exits.policy",
    "build": "layoutsel.exits.building",
    "load": "layoutsel.exits.building",
    "plan_exits": "layoutsel.exits.planner",
    "profiled": "layoutsel.exits.building",
    "read": "layoutsel.exits.network",
}
"""Module of each public name, imported on first use."""


def __getattr__(name: str) -> Any:
    """Import a public name on first use, as most parts work without TVM."""
    if name not in _MODULES:
        raise AttributeError(f"module 'layoutsel.exits' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)
