"""The process of a node that runs segments; Ray makes it an actor."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from layoutsel.cluster.engine import Work, digest
from layoutsel.cluster.own_load import OwnLoad
from layoutsel.cluster.segment_runner import PackedTensor, SegmentRunner
from layoutsel.cluster.statistics import NodeState
from tvm_passes.cache_folder import user_cache
from tvm_passes.errors import LayoutselError


class SegmentActor:
    """Loads announced artifacts and runs segments of the newest one.

    Parameters
    ----------
    node
        Name of the node.
    threads
        Number of threads.
    """

    def __init__(self, node: str, threads: int) -> None:
        self._node, self._threads = node, threads
        self._runner: SegmentRunner | None = None
        self._loaded = ""
        self._load_meter = OwnLoad()

    def facts(self) -> dict[str, str]:
        """Versions of this process by package."""
        return versions()

    def has(self, sha256: str) -> bool:
        """True if the artifact of that digest is open."""
        return self._loaded == sha256

    def open(self, sha256: str, path: str) -> bool:
        """Open an artifact of that digest; False if no file here has it.

        Parameters
        ----------
        sha256
            Digest.
        path
            File that may have it, in addition to this machine's cache.
        """
        for file in (Path(path), _cached(sha256)):
            with contextlib.suppress(OSError):
                if digest(file) == sha256:
                    self._load(file, sha256)
                    return True
        return False

    def receive(self, sha256: str, offset: int, part: np.ndarray | None) -> None:
        """Write a part of an artifact into the cache; None after the last one.

        Raises
        ------
        LayoutselError
            If the complete file has another digest.
        """
        file = _cached(sha256)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{sha256}.{os.getpid()}.part")
        if part is not None:
            with partial.open("wb" if offset == 0 else "r+b") as stream:
                stream.seek(offset)
                stream.write(part.data)
            return
        if (found := digest(partial)) != sha256:
            partial.unlink()
            raise LayoutselError(
                f"the artifact that arrived has the SHA-256 {found}; expected {sha256}"
            )
        partial.replace(file)

    def run(self, work: Work, names: Sequence[str], *tensors: PackedTensor) -> tuple[Any, ...]:
        """Run a segment; returns its times, and then its outputs in the order of the work."""
        outputs, times = self.runner.run(work, dict(zip(names, tensors, strict=True)))
        return times, *(outputs[name] for name in work.outputs)

    def state(self) -> NodeState:
        """State of this machine since the last call."""
        return self._load_meter.state()

    @property
    def runner(self) -> SegmentRunner:
        """Runner of the loaded artifact; raises :class:`LayoutselError` without one."""
        if self._runner is None:
            raise LayoutselError(f"node {self._node!r} has no artifact: load one")
        return self._runner

    def _load(self, file: Path, sha256: str) -> None:
        from layoutsel.runtime.loading import load

        before, self._runner = (
            self._runner,
            SegmentRunner(load(file), self._node, threads=self._threads),
        )
        self._loaded = sha256
        if before is not None:
            before.close()


def versions() -> dict[str, str]:
    """Versions that all nodes must share."""
    import tvm_ffi

    import layoutsel
    from tvm_passes.runtime_library import runtime_version

    return {
        "Python": platform.python_version(),
        "layoutsel": layoutsel.__version__,
        "apache-tvm": runtime_version(),
        "apache-tvm-ffi": tvm_ffi.__version__,
    }


def _cached(sha256: str) -> Path:
    """Place of an artifact in this machine's cache; the suffix is that of artifacts."""
    return user_cache() / "artifacts" / f"{sha256}.so"
