"""The TIR pipeline ``"layoutsel"``: TVM's own, once per kernel and process, with fewer passes.

Contenders of a race share most of their kernels, and TVM's passes take longer over one than LLVM.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import GlobalVar
from tvm.tirx.compilation_pipeline import get_tir_pipeline, register_tir_pipeline

from tvm_passes.cpu.emit import EMITTED
from tvm_passes.devices import HOST_DEVICE
from tvm_passes.instruments import nested_instruments
from tvm_passes.place_devices import device_of

NAME = "layoutsel"
"""Name of the pipeline."""
_NOT_FOR_EMITTED = (
    "s_tir.CompactBufferAllocation",
    "s_tir.InjectPermutedLayout",
    "s_tir.InjectVirtualThread",
    "tirx.RemoveNoOp",
)
"""Passes that are skipped for emitted kernels.

Most of the time of all passes is spent on inspecting every access of an unrolled kernel, and these
passes change none: buffers of emitted kernels are compact, and there are neither permuted layouts
nor virtual threads, nor statements without effect.
"""
_ENTRY = "tirx.is_entry_func"
"""Attribute by which TVM marks the only function of a module; kernels return to a larger module."""
_CAPACITY = 1024
"""Number of functions that are kept."""

_Functions = Mapping[GlobalVar, tirx.PrimFunc]
"""Functions of a module."""


class _Memory:
    """The latest :data:`_CAPACITY` functions, each with the result of TVM's passes."""

    def __init__(self) -> None:
        self._entries: OrderedDict[int, tuple[tirx.PrimFunc, tirx.PrimFunc]] = OrderedDict()

    def get(self, function: tirx.PrimFunc) -> tirx.PrimFunc | None:
        before, after = self._entries.get(tvm_ffi.structural_hash(function), (None, None))
        return after if before and tvm_ffi.structural_equal(before, function) else None

    def put(self, before: tirx.PrimFunc, after: tirx.PrimFunc) -> None:
        self._entries[tvm_ffi.structural_hash(before)] = (before, after)
        if len(self._entries) > _CAPACITY:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        self._entries.clear()


_memory = _Memory()
"""Lowered functions of this process."""


def forget_kernels() -> None:
    """Release the memory of the kept functions; they are lowered again on their next use."""
    _memory.clear()


def _pipeline() -> tuple[Any, Any, Any]:
    """Make the passes of the pipeline."""
    standard, finalize_host, finalize_device = get_tir_pipeline("default")

    def run(functions: _Functions, disabled: Iterable[str]) -> _Functions:
        current = tvm.transform.PassContext.current()
        with tvm.transform.PassContext(
            opt_level=current.opt_level,
            disabled_pass=[*current.disabled_pass, *disabled],
            instruments=nested_instruments(),
            config=current.config,
        ):
            return dict(standard(tvm.IRModule(functions)).functions)

    @tvm.transform.module_pass(opt_level=0, name="LowerKernels")
    def lower(module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        # A kernel of another device becomes two functions: device code and its launcher.
        devices = {gv: f for gv, f in module.functions.items() if device_of(f) != HOST_DEVICE}
        own = {gv: f for gv, f in module.functions.items() if gv not in devices}
        functions = {gv: _memory.get(function) for gv, function in own.items()}
        missing = {gv: own[gv] for gv, after in functions.items() if after is None}
        emitted = {gv: function for gv, function in missing.items() if EMITTED in function.attrs}
        others = {gv: function for gv, function in missing.items() if gv not in emitted}
        for group, disabled in ((emitted, _NOT_FOR_EMITTED), (others, ())):
            for gv, after in run(group, disabled).items() if group else ():
                functions[gv] = after.without_attr(_ENTRY)
                _memory.put(missing[gv], functions[gv])
        if devices:
            functions.update(run(devices, ()))
        return tvm.IRModule(functions, attrs=module.attrs)

    return lower, finalize_host, finalize_device


register_tir_pipeline(NAME, _pipeline)
