"""A candidate in place: what is timed."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import tvm_ffi

from layoutsel.device.virtual_machine import synchronise
from tvm_passes.devices import DEVICE_TYPES, DeviceId

_NO_COOLING, _NO_FLUSH, _ZERO_RUNS = (0, 1), 0, 100
"""Of TVM's time evaluator: pauses, what to flush from the caches, and tries where the clock shows no time."""


@dataclass(frozen=True, kw_only=True)
class LoadedCandidate:
    """A built candidate with its arguments in place."""

    machine: tvm_ffi.Module
    arguments: tuple[Any, ...]
    copies: int
    """How often one call of `main` runs the sub-graph."""
    device: DeviceId
    """Device that the arguments lie on."""

    def run(self) -> Any:
        """Call `main` once, and wait for it."""
        result = self.machine["main"](*self.arguments)
        synchronise((self.device,))
        return result

    def seconds(self, number: int) -> float:
        """Seconds of one of `number` calls of `main` in a row, behind one that is not counted."""
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
