"""An engine of a comparison, and the job that it gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from layoutsel.core.precision import F32

Report = Callable[[str], None]
"""Function that receives short texts about the progress."""

Run = Callable[[], Sequence[np.ndarray]]
"""Function that runs a loaded model once, on the inputs that it was loaded with."""


@dataclass(frozen=True, kw_only=True)
class EngineJob:
    """A model for an engine to run."""

    model: Path
    """ONNX file with static shapes."""
    threads: int
    """Number of threads."""
    precision: str
    """Precision mode."""
    workdir: Path
    """Folder for files that :attr:`Engine.prepare` writes and :attr:`Engine.load` reads."""
    options: Mapping[str, Any]
    """Options of :func:`layoutsel.optimize` for the engine layoutsel."""
    data: Path | None = None
    """File of inputs and expected results, as of :attr:`layoutsel.benchmarking.cases.Case.data`.

    Engines that choose among settings need it.
    """
    artifact: Path | None = None
    """Compiled model for the engine layoutsel; compiled first if None."""
    tuning_trials: int = 0
    """MetaSchedule trials of ``tvm-tuned`` for the whole model."""
    tuning_log: Path | None = None
    """Folder that keeps these trials; a later job runs those that are missing."""


def nothing_to_state(_job: EngineJob) -> str:
    """Text of an engine without settings."""
    return ""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Functions and properties of one engine."""

    name: str
    """Name on the command line."""
    load: Callable[[EngineJob, Mapping[str, np.ndarray]], Run]
    """Loads a model and its inputs; ``load_s`` is the time of this call."""
    prepare: Callable[[EngineJob, Report], None] | None = None
    """Compiles ahead of time in a separate process, untimed; None if not needed."""
    requires: tuple[str, ...] = ()
    """Modules that must be installed."""
    extra: str = "bench"
    """Extra of layoutsel that installs these modules."""
    computes_in: Callable[[str], str] = str
    """Returns the engine's precision for a precision mode."""
    settings: Callable[[EngineJob], str] = nothing_to_state
    """Returns a text about the settings of a prepared job; empty if there is nothing to state."""

    def unavailable(self) -> str | None:
        """Reason why the engine cannot run here; None if it can."""
        missing = [module for module in self.requires if find_spec(module) is None]
        if not missing:
            return None
        verb = "is" if len(missing) == 1 else "are"
        names = " and ".join(missing)
        return f"{names} {verb} not installed; pip install 'layoutsel[{self.extra}]'"


def always_f32(_mode: str) -> str:
    """Precision of an engine that has f32 alone and runs for comparison."""
    return F32
