"""Import of TVM without PyTorch, which TVM imports as well if it is installed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from layoutsel.core.collection import paused_collection

_PYTORCH = "torch"
_IMPORTERS = frozenset({"tvm_ffi", "tvm"})
"""Packages that import PyTorch if they can, and work as well without it."""


def import_tvm_without_pytorch() -> None:
    """Keep PyTorch out of this process unless the caller imports it.

    It would take seconds and hundreds of MB, and bring a second OpenMP library. Nothing changes if
    it is loaded already. An import of PyTorch by another thread fails while TVM is imported.
    """
    if _PYTORCH not in sys.modules:
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finder of :data:`_IMPORTERS` alone."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _IMPORTERS:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _LoaderWithoutPyTorch(spec.loader)
        return spec


class _LoaderWithoutPyTorch(Loader):
    """Loader of a module during which imports of PyTorch fail."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self._loader.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        is_loaded = _PYTORCH in sys.modules
        if not is_loaded:
            # Python raises ImportError for a module that is None.
            sys.modules[_PYTORCH] = None  # type: ignore[assignment]
        try:
            with paused_collection():
                self._loader.exec_module(module)
        finally:
            if not is_loaded:
                del sys.modules[_PYTORCH]
