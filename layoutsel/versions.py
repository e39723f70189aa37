"""Versions of everything that decides what a candidate costs."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

import layoutsel.building
import tvm_passes
from layoutsel.cost.machine import versions


@cache
def kernel_version() -> str:
    """Hash over the code that generates kernels, comments and formatting apart.

    A measurement of other kernels is stale.
    """
    digest = hashlib.sha256()
    for package in (tvm_passes, layoutsel.building):
        for file in sorted(Path(package.__path__[0]).rglob("*.py")):
            digest.update(ast.dump(ast.parse(file.read_bytes())).encode())
    return digest.hexdigest()[:12]


def all_versions() -> dict[str, str]:
    """Versions of everything that decides what a candidate costs."""
    return versions(kernels=kernel_version())
