"""Functions of modules that are imported on use: entries refer to code that needs TVM or ONNX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Deferred:
    """A function of another module, which is imported at the first call."""

    target: str
    """``module:name`` of the function."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the function."""
        module, _, name = self.target.partition(":")
        return getattr(import_module(module), name)(*arguments, **options)


def defining_module(function: Callable[..., Any]) -> str:
    """Name of the module that defines a function, also of a deferred one."""
    if isinstance(function, Deferred):
        return function.target.partition(":")[0]
    return str(function.__module__)
