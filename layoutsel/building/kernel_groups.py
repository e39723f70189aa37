"""Generation of object code for a few kernels at a time, which bounds the memory in use.

TVM's passes and LLVM take several MB for each kernel and keep them until its module is linked.
Kernels of one group are linked, and their memory is freed, before the next group starts.
"""

from __future__ import annotations

import tvm
from tvm import relax, tirx
from tvm.ir import GlobalVar

from layoutsel.runtime.linking import object_code
from tvm_passes.cpu import KERNEL_PIPELINE
from tvm_passes.cpu.kernel_pipeline import forget_kernels
from tvm_passes.freed_memory import give_back
from tvm_passes.pipeline import build_context

GROUP = 12
"""Number of kernels in a group."""
_SYMBOL = "global_symbol"
"""Attribute with the name under which other functions call a kernel."""
_LIBRARIES = "external_mods"
"""Attribute with the compiled modules that the executable is linked with."""


def generate_in_groups(module: tvm.IRModule, target: tvm.target.Target) -> relax.VMExecutable:
    """Compile a module of lowered units (stage 5) on the host; the result must be linked.

    Raises
    ------
    LayoutselError
        If there is no disk space for object code.
    """
    with build_context(module):
        with target:
            module = relax.get_pipeline("default_build")(module)
        module = _in_groups(module, target)
        return tvm.compile(module, target, relax_pipeline=None, tir_pipeline=KERNEL_PIPELINE)


def _in_groups(module: tvm.IRModule, target: tvm.target.Target) -> tvm.IRModule:
    """Replace most kernels by object code; the last group remains to state the machine's target."""
    functions = dict(module.functions)
    kernels = {gv: f for gv, f in functions.items() if isinstance(f, tirx.PrimFunc)}
    if not all(function.attrs and _SYMBOL in function.attrs for function in kernels.values()):
        return module  # private functions must stay with their callers
    libraries = []
    names = list(kernels)
    for start in range(0, len(names) - GROUP, GROUP):
        group = {gv: functions.pop(gv) for gv in names[start : start + GROUP]}
        libraries.append(_object_code(group, target))
        forget_kernels()
        give_back()
    attributes = dict(module.attrs or {})
    attributes[_LIBRARIES] = [*attributes.get(_LIBRARIES, []), *libraries]
    return tvm.IRModule(functions, attrs=tvm.ir.make_node("ir.DictAttrs", **attributes))


def _object_code(
    kernels: dict[GlobalVar, tirx.PrimFunc], target: tvm.target.Target
) -> tvm.runtime.Module:
    built = tvm.tirx.build(tvm.IRModule(kernels), target=target, pipeline=KERNEL_PIPELINE)
    return object_code(built, [str(function.attrs[_SYMBOL]) for function in kernels.values()])
