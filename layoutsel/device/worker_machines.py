"""Execution state of a worker's thread: affinity, thread count, primitives, virtual machines."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tvm_ffi

from layoutsel.device.cancellation import CancelToken, InFlight, instrument
from layoutsel.device.device_errors import Watch, check_not_forked, device_error, located
from layoutsel.device.entry_points import Program, StageChain
from layoutsel.device.threads import set_threads, shares_openmp
from layoutsel.device.virtual_machine import synchronise, virtual_machine
from layoutsel.errors import Cancelled, DeviceError
from tvm_passes.onednn.plugin import function

_caches = itertools.count(1)
"""Numbers of primitive caches; all other threads share cache 0."""


@contextmanager
def own_primitives() -> Iterator[None]:
    """Give the calling thread primitives of its own in a block that lasts until its end.

    With shared ones, one thread at a time runs a partition.
    """
    if not shares_openmp():
        yield
        return
    cache = next(_caches)
    function("layoutsel.onednn.use_cache")(cache)
    try:
        yield
    finally:
        function("layoutsel.onednn.drop_cache")(cache)


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """Threads, cores and time limit of a worker."""

    threads: int
    """Number of threads."""
    cores: tuple[int, ...]
    """Cores that the threads may use; empty for all cores of this process."""
    limit_s: float
    """Time limit of a run, seconds."""
    in_flight: InFlight | None = None
    """Limit of the work of runs with a token in a device's queue; None for no limit."""


class Machines:
    """Virtual machines of one thread, created on use: one with cancellation, one without."""

    def __init__(self, program: Program, settings: WorkerSettings) -> None:
        self._program, self._settings = program, settings
        self._is_set_up = False
        self._token: CancelToken | None = None
        self._made: dict[bool, tvm_ffi.Module] = {}
        self._functions: dict[
            tuple[tuple[str, ...], bool], Callable[..., list[tvm_ffi.Tensor]]
        ] = {}

    def run(self, work: Callable[[Machines], Any]) -> Any:
        """Do work that runs stages, and return its result."""
        self._set_up()
        check_not_forked(self._program.devices)
        return work(self)

    def run_chain(
        self,
        chain: StageChain,
        inputs: Sequence[tvm_ffi.Tensor],
        token: CancelToken | None,
        finish: Callable[[list[tvm_ffi.Tensor]], Any],
    ) -> Any:
        """Run stages; the arguments are those of :meth:`TensorWorker.start`."""
        with self._naming(chain, inputs), self.watching(token):
            results = self.function(chain, is_watched=token is not None)(*inputs)
        results = results[: len(chain.outputs)]  # without outputs for verification alone
        return finish(self._program.ownership.own(inputs, results))

    @contextmanager
    def watching(self, token: CancelToken | None) -> Iterator[None]:
        """Let a token, if any, cancel the runs of watched functions within the context.

        Raises
        ------
        Cancelled
            If the token is cancelled already.
        """
        if token is None:
            yield
            return
        token.check()
        self._token = token
        with token.watching():
            try:
                yield
            except Cancelled:
                self._await_device()
                raise

    def _device_error(
        self, error: Exception, chain: StageChain, inputs: Sequence[tvm_ffi.Tensor]
    ) -> DeviceError | None:
        """Device error that names the sub-graph, found by a second run; None if the host failed."""
        program = self._program
        if all(device.is_host for device in program.devices):
            return None

        def run(watch: Watch) -> None:
            machine = virtual_machine(program.module, program.devices)
            machine["set_instrument"](watch)
            program.function(machine, chain)(*inputs)

        place = located(error, run, program.calls, program.devices)
        return device_error(error, place, program.subgraphs) if place else None

    def _set_up(self) -> None:
        """Set affinity and thread count of the calling thread; OpenMP's threads inherit them."""
        if self._is_set_up:
            return
        cores = self._settings.cores
        if cores:
            os.sched_setaffinity(0, cores)  # 0 is the calling thread, not the process
        set_threads(self._settings.threads, cores or None)
        self._is_set_up = True

    def function(
        self, chain: StageChain, *, is_watched: bool
    ) -> Callable[..., list[tvm_ffi.Tensor]]:
        """Make the function of some stages; one that is watched obeys :meth:`watching`."""
        key = chain.names, is_watched
        if key not in self._functions:
            run = self._program.function(self._machine(is_watched), chain, repeats=True)
            on_device = self._settings.in_flight is not None
            self._functions[key] = self._to_its_end(run, chain) if on_device else run
        return self._functions[key]

    def _to_its_end(
        self, run: Callable[..., list[tvm_ffi.Tensor]], chain: StageChain
    ) -> Callable[..., list[tvm_ffi.Tensor]]:
        """Make a function that returns when the device has ended; its errors name the sub-graph."""

        def whole(*inputs: tvm_ffi.Tensor) -> list[tvm_ffi.Tensor]:
            with self._naming(chain, inputs):
                results = run(*inputs)
                self._await_device()
                return results

        return whole

    @contextmanager
    def _naming(self, chain: StageChain, inputs: Sequence[tvm_ffi.Tensor]) -> Iterator[None]:
        """Let errors of a device within the context name the sub-graph."""
        try:
            yield
        except Cancelled:
            raise
        except Exception as error:
            failure = self._device_error(error, chain, inputs)
            if failure is None:
                raise
            raise failure from error

    def _await_device(self) -> None:
        """Wait until the worker's device, if any, has finished its work."""
        if self._settings.in_flight is not None:
            synchronise([self._settings.in_flight.device])

    def _machine(self, is_watched: bool) -> tvm_ffi.Module:
        if is_watched not in self._made:
            machine = virtual_machine(self._program.module, self._program.devices)
            if is_watched:
                found = instrument(self._current_token, self._settings.in_flight)
                machine["set_instrument"](found)
            self._made[is_watched] = machine
        return self._made[is_watched]

    def _current_token(self) -> CancelToken:
        assert self._token is not None, "only runs with a token use this machine"
        return self._token
