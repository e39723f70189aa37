"""A network divided over the nodes of a topology: planned for targets, executed, re-planned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = [
    "Distributions",
    "Statistics",
    "Target",
    "Topology",
    "build",
    "deploy",
    "distribute",
    "redistribute",
]

if TYPE_CHECKING:
    from layoutsel.cluster.building import build
    from layoutsel.cluster.deploying import deploy
    from layoutsel.cluster.distributing import distribute
    from layoutsel.cluster.distribution import Distributions
    from layoutsel.cluster.redistributing import redistribute
    from layoutsel.cluster.segments import Target
    from layoutsel.cluster.statistics import Statistics
    from layoutsel.cluster.topology import Topology

_MODULES = {
    "Distributions": "layoutsel.cluster.distribution",
    "Statistics": "layoutsel.cluster.statistics",
    "Target": "layoutsel.cluster.segments",
    "Topology": "layoutsel.cluster.topology",
    "build": "layoutsel.cluster.building",
    "deploy": "layoutsel.cluster.deploying",
    "distribute": "layoutsel.cluster.distributing",
    "redistribute": "layoutsel.cluster.redistributing",
}
"""Module of each public name, imported on first use."""


def __getattr__(name: str) -> Any:
    """Import a public name on first use, as most parts work without TVM."""
    if name not in _MODULES:
        raise AttributeError(f"module 'layoutsel.cluster' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)
