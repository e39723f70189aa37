"""A package from outside: one module that entry points name, installed in a folder, used by child processes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.prepared import run_python

PACKAGES = Path(__file__).parent / "packages"
"""Modules that tests install, one file each."""
_TIME_LIMIT_S = 300

RUN = """
import sys
from pathlib import Path
import numpy as np
import layoutsel

folder = Path(sys.argv[1])
np.save(folder / "got.npy", layoutsel.load(folder / "model.so")(np.load(folder / "x.npy")))
"""
"""Script: load the artifact of a folder, run it on ``x.npy``, save ``got.npy``."""

BUILD = """
import sys
from pathlib import Path
import numpy as np
import layoutsel

folder = Path(sys.argv[1])
model = layoutsel.compile_plan(folder / "model.onnx", folder / "plan.json")
np.save(folder / "got.npy", model(np.load(folder / "x.npy")))
"""
"""Script: build the plan of a folder, run it on ``x.npy``, save ``got.npy``."""


@dataclass(frozen=True, kw_only=True)
class OutsidePackage:
    """A package that is installed in a folder of its own."""

    site: Path
    """Folder that the module and its metadata lie in."""

    def run(self, script: str, *arguments: object, installed: bool = True) -> str:
        """Run a script in a child process, with the package or without; its standard output."""
        done = self.attempt(script, *arguments, installed=installed)
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def attempt(
        self, script: str, *arguments: object, installed: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a script in a child process that may fail."""
        folders = [str(self.site)] if installed else []
        before = os.environ.get("PYTHONPATH")
        path = os.pathsep.join([*folders, *([before] if before else [])])
        variables = {"PYTHONPATH": path}
        return run_python("-c", script, *arguments, limit_s=_TIME_LIMIT_S, environment=variables)


def install(folder: Path, module: Path, entries: Mapping[str, str]) -> OutsidePackage:
    """Install one module as a package.

    Parameters
    ----------
    folder
        An empty folder.
    module
        The file; it is copied, so that nothing else of its folder can be imported.
    entries
        Attribute of the module by registry, such as ``{"layouts": "LAYOUT"}`` for the entry-point
        group ``layoutsel.layouts``.
    """
    site = folder / "site"
    info = site / f"{module.stem}-1.0.dist-info"
    info.mkdir(parents=True)
    shutil.copy(module, site)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {module.stem.replace('_', '-')}\nVersion: 1.0\n"
    )
    lines = [
        f"[layoutsel.{registry}]\n{attribute.lower()} = {module.stem}:{attribute}\n"
        for registry, attribute in entries.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return OutsidePackage(site=site)
