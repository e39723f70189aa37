"""Runs of stages on the calling thread, without a hand-over to a worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tvm_ffi

from layoutsel.device.cancellation import native_instrument
from layoutsel.device.device_errors import check_not_forked
from layoutsel.device.entry_points import EntryPoint, Program, StageChain
from layoutsel.device.own_threads import OwnThreads
from layoutsel.device.turns import Turn
from layoutsel.device.virtual_machine import virtual_machine


class StageCaller:
    """Runs stages of one model, one call at a time; the caller's threads and settings stay as is.

    A call costs less than a :class:`~layoutsel.device.stage_worker.TensorWorker`'s by two switches
    of threads. It has no time limit and is not pinned.

    Parameters
    ----------
    program
        Code and weights of the model.
    threads
        Number of threads.
    is_watched
        True to obey the token that watches the calling thread; only with the plugin.
    """

    def __init__(self, program: Program, *, threads: int = 1, is_watched: bool = False) -> None:
        self._program = program
        self._machine = virtual_machine(program.module, program.devices)
        if is_watched:
            self._machine["set_instrument"](native_instrument())
        self._threads = OwnThreads(threads)

    def function(self, chain: StageChain) -> Callable[..., list[tvm_ffi.Tensor]]:
        """Make the function of some stages, to be called within :meth:`run` alone."""
        return self._program.function(self._machine, chain, repeats=True)

    def chain_parts(
        self, entries: Sequence[EntryPoint]
    ) -> tuple[list[tvm_ffi.Function], list[tvm_ffi.Function], list[Any]]:
        """Functions and weights of some stages: see :meth:`Program.chain_parts`."""
        return self._program.chain_parts(self._machine, entries)

    @property
    def uses_devices(self) -> bool:
        """True if the model needs a device other than the host."""
        return any(not device.is_host for device in self._program.devices)

    @property
    def threads(self) -> int:
        """Number of threads."""
        return self._threads.count

    @property
    def turn(self) -> Turn:
        """Lock of one call."""
        return self._threads.turn

    def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Call `work`, which calls stages.

        Raises
        ------
        ForkedError
            If another thread ran a call when this process was forked, and did not end in time.
        """
        check_not_forked(self._program.devices)
        return self._threads.run(work, *arguments)

    def own(
        self, inputs: Sequence[tvm_ffi.Tensor], results: Sequence[tvm_ffi.Tensor]
    ) -> list[tvm_ffi.Tensor]:
        """Copy results that share memory with inputs, weights or one another."""
        return self._program.ownership.own(inputs, results)
