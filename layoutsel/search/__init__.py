"""Architecture search, priced by the compiler that deploys what is found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = [
    "Architecture",
    "Cell",
    "FoundNetwork",
    "RunFolder",
    "Space",
    "joint_question",
    "measure",
    "offload_question",
    "search_joint",
    "search_offload",
]

if TYPE_CHECKING:
    from layoutsel.search.deploying import measure
    from layoutsel.search.found import FoundNetwork
    from layoutsel.search.joint.question import joint_question
    from layoutsel.search.joint.search import search_joint
    from layoutsel.search.offload_run import offload_question, search_offload
    from layoutsel.search.run_folder import RunFolder
    from layoutsel.search.space import Architecture, Cell, Space

_MODULES = {
    "Architecture": "layoutsel.search.space",
    "Cell": "layoutsel.search.space",
    "FoundNetwork": "layoutsel.search.found",
    "RunFolder": "layoutsel.search.run_folder",
    "Space": "layoutsel.search.space",
    "joint_question": "layoutsel.search.joint.question",
    "measure": "layoutsel.search.deploying",
    "offload_question": "layoutsel.search.offload_run",
    "search_joint": "layoutsel.search.joint.search",
    "search_offload": "layoutsel.search.offload_run",
}
"""Module of each public name, imported on first use."""


def __getattr__(name: str) -> Any:
    """Import a public name on first use: child processes that train need no compiler."""
    if name not in _MODULES:
        raise AttributeError(f"module 'layoutsel.search' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)
