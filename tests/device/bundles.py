"""Bundles that are written by hand."""

from __future__ import annotations

import platform
from pathlib import Path

from layoutsel.bundling.write import write_archive
from layoutsel.compile.versions import all_versions
from layoutsel.device.manifest import SCHEMA_VERSION, Manifest, ProgramEntry, Requirements

PROGRAM = ProgramEntry(
    file="lib/reference.so", inputs=(), weights=(), devices=("llvm",), device="llvm", copies=1
)


def manifest(**changed: object) -> Manifest:
    """A manifest of nothing, for this machine."""
    fields = {
        "schema_version": SCHEMA_VERSION,
        "model": "none",
        "model_hash": "0",
        "targets": {"llvm": "{}"},
        "requires": requirements(),
        "reference": PROGRAM,
        "candidates": (),
        "boundaries": (),
        "unbuilt": (),
        "workloads": (),
        "deployed": None,
    }
    return Manifest(**{**fields, **changed})


def requirements(**changed: object) -> Requirements:
    """What this machine has."""
    fields = {
        "architecture": platform.machine(),
        "features": (),
        "units": ("cpu",),
        "devices": (),
        "threads": 1,
        "versions": all_versions(),
    }
    return Requirements(**{**fields, **changed})


def written(folder: Path, name: str = "bundle.tar", **changed: object) -> Path:
    """A bundle with a library that is none."""
    contents = folder / f"{name}.contents"
    (contents / "lib").mkdir(parents=True)
    (contents / "lib" / "reference.so").write_bytes(b"no library" * 100)
    write_archive(contents, manifest(**changed), folder / name)
    return folder / name
