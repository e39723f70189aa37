"""Object code of kernels, a few at a time: memory for some of them goes back before the next ones take it.

TVM's passes and LLVM take some MB for each kernel, and keep them until the module of the kernel is linked.
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
"""Kernels whose code is generated at once."""
_SYMBOL = "global_symbol"
"""Attribute of kernels: the name that others call them by."""
_LIBRARIES = "external_mods"
"""Attribute of modules: compiled modules that the executable is linked with."""


def generate_in_groups(module: tvm.IRModule, target: tvm.target.Target) -> relax.VMExecutable:
    """Compile a module whose units are lowered (stage 5) and all run on the host; the result has to be linked.

    Raises
    ------
    LayoutselError
        If there is no room for object code.
    """
    with build_context(module):
        with target:
            module = relax.get_pipeline("default_build")(module)
        module = _in_groups(module, target)
        return tvm.compile(module, target, relax_pipeline=None, tir_pipeline=KERNEL_PIPELINE)


def _in_groups(module: tvm.IRModule, target: tvm.target.Target) -> tvm.IRModule:
    """`module` with object code in place of most kernels; the last group stays, and says what machine this is for."""
    functions = dict(module.functions)
    kernels = {gv: f for gv, f in functions.items() if isinstance(f, tirx.PrimFunc)}
    if not all(function.attrs and _SYMBOL in function.attrs for function in kernels.values()):
        return module  # private functions belong to those that call them
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
