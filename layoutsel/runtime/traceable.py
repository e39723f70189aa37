"""Traceable: the parts of a compiled model that tracing needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tvm_ffi

from layoutsel.device.own_threads import OwnThreads


class Traceable(Protocol):
    """A model with observable calls, as :class:`layoutsel.runtime.compiled.CompiledModel` is."""

    header: dict[str, Any]
    """Description of the model in its artifact."""
    own_threads: OwnThreads
    """Threads that the model runs on."""

    @property
    def plan(self) -> Mapping[str, Any]:
        """Plan that was built, as JSON data."""

    def modules(self) -> Iterator[tvm_ffi.Module]:
        """Iterate over the runtime modules of the model."""

    def synchronise(self) -> None:
        """Wait for work on devices."""

    def instrumented_call(
        self, inputs: Sequence[np.ndarray], instrument: Callable[..., None]
    ) -> Callable[[], float]:
        """Make a function that runs once, observed, and returns its microseconds."""
