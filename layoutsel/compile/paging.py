"""Source weights that leave memory while nobody reads them: they lie in a file that is mapped.

A plan reads them once, to pack them. Between two plans their pages go back to the system, and come from the file again.
"""

from __future__ import annotations

import logging
import mmap
from dataclasses import dataclass, replace

import numpy as np
import tvm
from tvm import relax

from layoutsel.model import ImportedModel
from layoutsel.references.stored_arrays import ArrayFile
from tvm_passes.arrays import SMALLEST_BYTES, array_of, constant_in_place
from tvm_passes.freed_memory import give_back
from tvm_passes.ir import Constant, leaves, main_bindings, substitute

logger = logging.getLogger(__name__)

PAGED_BYTES = 16 << 20
"""Weights from which a model's are paged."""


@dataclass(frozen=True)
class Pages:
    """The mapped file of a model's weights; None where they stay in memory."""

    mapping: mmap.mmap | None = None

    def evict(self) -> None:
        """Give the pages back; whoever reads them gets them from the file."""
        if self.mapping is not None:
            self.mapping.madvise(mmap.MADV_DONTNEED)
        give_back()


def paged(model: ImportedModel) -> tuple[ImportedModel, Pages]:
    """`model` with its large weights in a mapped file, and their pages; as it is where they are few, or do not fit there."""
    constants = _large_constants(model.module)
    if sum(array_of(constant).nbytes for constant in constants) < PAGED_BYTES:
        return model, Pages()
    try:
        file = ArrayFile(map(array_of, constants))
    except OSError as error:
        logger.info("the weights stay in memory, as they cannot be written: %s", error)
        return model, Pages()
    arrays = file.arrays.mapped()
    memory: object = arrays[0]
    while isinstance(memory, np.ndarray):
        memory = memory.base
    assert isinstance(memory, mmap.mmap), "numpy maps files by it"
    moved = {
        constant: constant_in_place(np.asarray(array))
        for constant, array in zip(constants, arrays, strict=True)
    }
    return replace(model, module=_with_constants(model.module, moved)), Pages(memory)


def _large_constants(module: tvm.IRModule) -> list[Constant]:
    found = {
        leaf: None
        for binding in main_bindings(module["main"])
        for leaf in leaves(binding.value)
        if isinstance(leaf, Constant)
    }
    return [constant for constant in found if array_of(constant).nbytes >= SMALLEST_BYTES]


def _with_constants(module: tvm.IRModule, moved: dict[Constant, Constant]) -> tvm.IRModule:
    """`module` with other constants in `main`; its variables, which carry names, stay."""
    main = module["main"]
    bindings = [
        relax.VarBinding(binding.var, substitute(binding.value, moved.get))
        for binding in main_bindings(main)
    ]
    body = relax.SeqExpr([relax.DataflowBlock(bindings)], main.body.body)
    result = module.clone()
    result.update_func(
        result.get_global_var("main"),
        relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs),
    )
    return result
