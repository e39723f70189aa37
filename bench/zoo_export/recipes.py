"""How a network of a library is built, without pretrained weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A network to export."""

    families: tuple[str, ...]
    """Family of the architecture, followed by those of its backbone."""
    package: str
    """Name of the package on the index."""
    source: str
    """Name of the network or class within the package."""
    size_of: str
    """Meaning of a size, such as ``pixels``."""
    sizes: tuple[int, ...]
    """Sizes of the input; the first is the default."""
    build: Callable[[int], tuple[Any, Mapping[str, Any]]]
    """Function of a size: the module, and its inputs by name."""
    by_name: bool = False
    """True if the module takes its inputs by name."""


def images(size: int, name: str = "image") -> dict[str, Any]:
    """One square image."""
    import torch

    return {name: torch.randn(1, 3, size, size)}
