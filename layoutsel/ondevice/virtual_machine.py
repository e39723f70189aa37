"""TVM's virtual machine, without TVM's Python package."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tvm_ffi

from layoutsel.ondevice.tensors import synchronise
from tvm_passes.devices import DEVICE_TYPES, HOST

_POOLED_ALLOCATOR = 2
"""Keeps what a run has freed for the next one."""
_NO_COOLING, _NO_FLUSH, _ZERO_RUNS = (0, 1), 0, 100
"""Of TVM's time evaluator: pauses, what to flush from the caches, and tries where the clock shows no time."""


def virtual_machine(module: tvm_ffi.Module, devices: Sequence[str] = (HOST,)) -> tvm_ffi.Module:
    """TVM's virtual machine for `module`.

    Parameters
    ----------
    devices
        Kinds of the devices that it runs on, in the module's own order.
    """
    machine = module["vm_load_executable"]()
    # The machine takes the last device for the host.
    wanted = [*devices, HOST] if devices[-1] != HOST else devices
    machine["vm_initialization"](
        *(number for kind in wanted for number in (DEVICE_TYPES[kind], 0, _POOLED_ALLOCATOR))
    )
    return machine


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A built candidate with its arguments in place."""

    machine: tvm_ffi.Module
    arguments: tuple[Any, ...]
    copies: int
    """How often one call of `main` runs the sub-graph."""
    device: str
    """Kind of the device that the arguments lie on."""

    def run(self) -> Any:
        """Call `main` once, and wait for it."""
        result = self.machine["main"](*self.arguments)
        synchronise(self.device)
        return result

    def seconds(self, number: int) -> float:
        """Seconds of one of `number` calls of `main` in a row, behind one that is not counted."""
        kind = DEVICE_TYPES[self.device]
        evaluator = tvm_ffi.get_global_func("runtime.RPCTimeEvaluator")(
            *(self.machine, "main", kind, 0, number, 1, 0, _ZERO_RUNS, *_NO_COOLING, _NO_FLUSH, "")
        )
        (mean_s,) = struct.unpack("@d", evaluator(*self.arguments))
        return float(mean_s)
