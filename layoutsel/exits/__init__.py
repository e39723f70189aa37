"""Multi-exit networks: branches in parallel with the trunk, an answer as soon as one is sure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = [
    "ExitAnswer",
    "ExitMatrix",
    "ExitModel",
    "ExitNetwork",
    "ExitPlan",
    "ExitServer",
    "Policy",
    "attach",
    "calibrate",
    "compile",
    "compile_for_loads",
    "load",
    "observe",
    "open_for_loads",
    "plan",
    "read",
    "train",
]

if TYPE_CHECKING:
    from layoutsel.exits.building import load
    from layoutsel.exits.calibrating import calibrate
    from layoutsel.exits.executor import ExitModel
    from layoutsel.exits.exit_answer import ExitAnswer
    from layoutsel.exits.exit_plan import ExitPlan
    from layoutsel.exits.load_aware_building import open_for_loads
    from layoutsel.exits.matrix import ExitMatrix
    from layoutsel.exits.network import ExitNetwork, read
    from layoutsel.exits.observing import observe
    from layoutsel.exits.policy import Policy
    from layoutsel.exits.server import ExitServer
    from layoutsel.exits.steps import compile, compile_for_loads, plan
    from layoutsel.exits.training.attach import attach
    from layoutsel.exits.training.train import train

_MODULES = {
    "ExitAnswer": "layoutsel.exits.exit_answer",
    "ExitMatrix": "layoutsel.exits.matrix",
    "ExitModel": "layoutsel.exits.executor",
    "ExitNetwork": "layoutsel.exits.network",
    "ExitPlan": "layoutsel.exits.exit_plan",
    "ExitServer": "layoutsel.exits.server",
    "Policy": "layoutsel.exits.policy",
    "attach": "layoutsel.exits.training.attach",
    "calibrate": "layoutsel.exits.calibrating",
    "compile": "layoutsel.exits.steps",
    "compile_for_loads": "layoutsel.exits.steps",
    "load": "layoutsel.exits.building",
    "observe": "layoutsel.exits.observing",
    "open_for_loads": "layoutsel.exits.load_aware_building",
    "plan": "layoutsel.exits.steps",
    "read": "layoutsel.exits.network",
    "train": "layoutsel.exits.training.train",
}
"""Module of each public name, imported on first use."""


def __getattr__(name: str) -> Any:
    """Import a public name on first use: most parts need no TVM, and only `attach` needs torch."""
    if name not in _MODULES:
        raise AttributeError(f"module 'layoutsel.exits' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)
