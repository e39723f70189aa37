"""Loaded candidates, ready to be timed."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import tvm_ffi

from layoutsel.device.virtual_machine import synchronise
from tvm_passes.devices import DEVICE_TYPES, DeviceId

_NO_COOLING, _NO_FLUSH, _ZERO_RUNS = (0, 1), 0, 100
"""Arguments of TVM's time evaluator: pauses, bytes to flush from caches, retries when the clock
shows no time."""


@dataclass(frozen=True, kw_only=True)
class LoadedCandidate:
    """A built candidate with its arguments in device memory."""

    machine: tvm_ffi.Module
    """Virtual machine whose `main` runs the candidate."""
    arguments: tuple[Any, ...]
    """Arguments of `main`."""
    copies: int
    """Number of runs of the sub-graph in one call of `main`."""
    device: DeviceId
    """Device that holds the arguments."""

    def run(self) -> Any:
        """Call `main` once and wait for its end."""
        result = self.machine["main"](*self.arguments)
        synchronise((self.device,))
        return result

    def seconds(self, number: int) -> float:
        """Mean seconds of one call of `main`, over `number` calls after an untimed one."""
        kind, index = DEVICE_TYPES[self.device.target_kind], self.device.index
        evaluator = tvm_ffi.get_global_func("runtime.RPCTimeEvaluator")(
            *(
                self.machine,
                "main",
                kind,
                index,
                number,
                1,
                0,
                _ZERO_RUNS,
                *_NO_COOLING,
                _NO_FLUSH,
                "",
            )
        )
        (mean_s,) = struct.unpack("@d", evaluator(*self.arguments))
        return float(mean_s)
