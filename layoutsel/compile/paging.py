"""Paging of source weights: they lie in a mapped file and leave memory between uses.

A plan reads the source weights once, to pack them. Between two plans their pages return to the
system, and are read from the file again on demand.
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
"""Minimum bytes of weights for the paging of a model."""


@dataclass(frozen=True)
class Pages:
    """Mapped file of a model's weights."""

    mapping: mmap.mmap | None = None
    """Mapped file; None if the weights stay in memory."""

    def evict(self) -> None:
        """Return the pages to the system; the next access reads them from the file again."""
        if self.mapping is not None:
            self.mapping.madvise(mmap.MADV_DONTNEED)
        give_back()


def paged(model: ImportedModel) -> tuple[ImportedModel, Pages]:
    """Move the large weights of a model into a mapped file.

    Models with few weights, or whose weights cannot be written, stay unchanged.

    Returns
    -------
    tuple
        Model with mapped weights, and their pages.
    """
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
    """Replace constants in `main`; its variables, which carry names, stay."""
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
