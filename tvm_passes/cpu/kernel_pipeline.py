"""The TIR pipeline ``"layoutsel"``: TVM's own, run once per kernel and process, and spared what kernels do not need.

Plans that are raced against each other share most of their kernels, and TVM's passes take longer over one than LLVM.
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
from tvm_passes.place_devices import device_of

NAME = "layoutsel"
_NOT_FOR_EMITTED = ("s_tir.CompactBufferAllocation",)
"""Half the time of all passes goes to its look at every access of an unrolled kernel; emitted buffers are compact."""
_ENTRY = "tirx.is_entry_func"
"""TVM marks the function of a module that has but one; kernels come back into a module with others."""
_CAPACITY = 1024

_Functions = Mapping[GlobalVar, tirx.PrimFunc]


class _Memory:
    """The latest :data:`_CAPACITY` functions with what TVM's passes made of them."""

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


def forget_kernels() -> None:
    """Give back the memory of the functions that are kept; they are lowered again when they come again."""
    _memory.clear()


def _pipeline() -> tuple[Any, Any, Any]:
    standard, finalize_host, finalize_device = get_tir_pipeline("default")

    def run(functions: _Functions, disabled: Iterable[str]) -> _Functions:
        current = tvm.transform.PassContext.current()
        with tvm.transform.PassContext(
            opt_level=current.opt_level,
            disabled_pass=[*current.disabled_pass, *disabled],
            config=current.config,
        ):
            return dict(standard(tvm.IRModule(functions)).functions)

    @tvm.transform.module_pass(opt_level=0, name="LowerKernels")
    def lower(module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        # A kernel of another device comes back as two functions: what runs there, and what launches it.
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
